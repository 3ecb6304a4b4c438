from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from mlic_runtime.base.machine import available_cores
from mlic_runtime.errors import PackageError, ProviderError
from mlic_runtime.graph import session
from mlic_runtime.graph.session import create_session, first_that_loads
from mlic_runtime.providers.names import PROVIDERS

Field = Callable[[int, "int | str | bytes"], bytes]
Shape = list["int | str"]

FLOAT, UINT8, INT64 = 1, 2, 7
PIXELS: "tuple[int, Shape]" = (UINT8, ["B", 6, 8, 3])
TOKENS: "tuple[int, Shape]" = (INT64, ["B", "T"])
LOGITS: "tuple[int, Shape]" = (FLOAT, ["B", "L"])


@pytest.fixture
def make_graph(proto: Field) -> Callable[..., bytes]:
    """ONNX bytes of: output = operator(mean of the first input over all axes between the first and the last)."""

    def value_info(name: str, kind: "tuple[int, Shape]") -> bytes:
        dtype, shape = kind
        dims = b"".join(proto(1, proto(1, side) if isinstance(side, int) else proto(2, side)) for side in shape)
        return proto(1, name) + proto(2, proto(1, proto(1, dtype) + proto(2, dims)))

    def node(operator: str, source: str, target: str, *attributes: bytes) -> bytes:
        return proto(1, source) + proto(2, target) + proto(4, operator) + b"".join(proto(5, a) for a in attributes)

    def integers(name: str, *values: int) -> bytes:
        return proto(1, name) + b"".join(proto(8, value) for value in values) + proto(20, 7)

    def integer(name: str, value: int) -> bytes:
        return proto(1, name) + proto(3, value) + proto(20, 2)

    def make(
        inputs: "dict[str, tuple[int, Shape]]",
        output: "tuple[str, tuple[int, Shape]]" = ("logits", LOGITS),
        operator: str = "Identity",
    ) -> bytes:
        name, (dtype, _) = output
        first, (_, shape) = next(iter(inputs.items()))
        axes = range(1, len(shape) - 1) if len(output[1][1]) == 2 else range(1, len(shape) - 2)
        nodes = [
            node("Cast", first, "cast", integer("to", FLOAT)),
            node("ReduceMean", "cast", "mean", integers("axes", *axes), integer("keepdims", 0)),
            node(operator, "mean", "result"),
            node("Cast", "result", name, integer("to", dtype)),
        ]
        graph = (
            b"".join(proto(1, n) for n in nodes)
            + proto(2, "graph")
            + b"".join(proto(11, value_info(*item)) for item in inputs.items())
            + proto(12, value_info(*output))
        )
        return proto(1, 8) + proto(7, graph) + proto(8, proto(1, "") + proto(2, 17))

    return make


def test_a_graph_is_loaded_with_what_it_says_about_itself(tiny: Path) -> None:
    session = create_session((tiny / "model.fp32.onnx").read_bytes(), threads=1)
    assert (session.provider, session.threads, session.reads_caption) == ("cpu", 1, True)
    assert (session.height, session.width, session.num_labels) == (6, 8, 3)


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 4), (2, 1), (3, 6), (0, 1)])
def test_batch_and_length_are_free(tiny: Path, batch: int, length: int) -> None:
    session = create_session((tiny / "model.fp32.onnx").read_bytes())
    tokens = np.zeros((batch, length), dtype=np.int64)
    logits = session.run(np.zeros((batch, 6, 8, 3), dtype=np.uint8), tokens, tokens)
    assert logits.dtype == np.float32
    assert (logits == np.full((batch, 3), -2)).all()


def test_the_sides_may_be_open(make_graph: Callable[..., bytes]) -> None:
    session = create_session(make_graph({"pixels": (UINT8, ["B", "H", "W", 3])}))
    assert (session.height, session.width, session.num_labels) == (None, None, 3)
    assert session.run(np.full((2, 5, 7, 3), 9, dtype=np.uint8)).tolist() == [[9, 9, 9], [9, 9, 9]]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"image": PIXELS}, "has the inputs image; expected pixels"),
        ({"pixels": PIXELS, "input_ids": TOKENS}, "expected pixels, input_ids, attention_mask"),
        ({"pixels": PIXELS, "attention_mask": TOKENS}, "expected pixels, input_ids, attention_mask"),
        ({"pixels": PIXELS, "extra": TOKENS}, "has the inputs pixels, extra; expected pixels"),
        ({"pixels": (FLOAT, ["B", 6, 8, 3])}, r"input pixels is tensor\(float\) .* expected tensor\(uint8\) of rank 4"),
        ({"pixels": (UINT8, ["B", 6, 3])}, r"expected tensor\(uint8\) of rank 4"),
        ({"pixels": (UINT8, ["B", 3, 6, 8])}, r"expected \(B, H, W, 3\)"),
        ({"pixels": (UINT8, ["B", 6, 8, "C"])}, r"expected \(B, H, W, 3\)"),
        ({"pixels": (UINT8, [1, 6, 8, 3])}, "pixels has the fixed shape .* dynamic axes"),
        (
            {"pixels": PIXELS, "input_ids": (UINT8, ["B", "T"]), "attention_mask": TOKENS},
            r"input_ids is tensor\(uint8\)",
        ),
        ({"pixels": PIXELS, "input_ids": TOKENS, "attention_mask": (INT64, ["B"])}, "attention_mask .* of rank 2"),
        (
            {"pixels": PIXELS, "input_ids": (INT64, ["B", 20]), "attention_mask": TOKENS},
            "input_ids has the fixed shape",
        ),
    ],
)
def test_inputs_that_break_the_contract_are_refused(
    make_graph: Callable[..., bytes], inputs: "dict[str, tuple[int, Shape]]", message: str
) -> None:
    with pytest.raises(PackageError, match=message):
        create_session(make_graph(inputs))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (("scores", LOGITS), "has the outputs scores; expected logits"),
        (("logits", (INT64, ["B", "L"])), r"output logits is tensor\(int64\)"),
        (("logits", (FLOAT, ["B", "L", 3])), r"expected tensor\(float\) of rank 2"),
        (("logits", (FLOAT, [1, 3])), "logits has the fixed shape"),
    ],
)
def test_outputs_that_break_the_contract_are_refused(
    make_graph: Callable[..., bytes], output: "tuple[str, tuple[int, Shape]]", message: str
) -> None:
    with pytest.raises(PackageError, match=message):
        create_session(make_graph({"pixels": PIXELS}, output))


@pytest.mark.parametrize("graph", [b"", b"not a graph", b"\x3a\x00"])
def test_what_onnx_runtime_cannot_load_is_one_line(graph: bytes) -> None:
    with pytest.raises(PackageError, match=r"^ONNX Runtime cannot load the graph: .") as caught:
        create_session(graph)
    assert "\n" not in str(caught.value)


def test_an_operator_that_does_not_exist_is_refused(make_graph: Callable[..., bytes]) -> None:
    with pytest.raises(PackageError, match=r"cannot load the graph: .*Teleport"):
        create_session(make_graph({"pixels": PIXELS}, operator="Teleport"))


def test_logits_that_are_not_finite_are_the_graphs_fault(make_graph: Callable[..., bytes]) -> None:
    session = create_session(make_graph({"pixels": PIXELS}, operator="Reciprocal"))
    assert session.run(np.full((1, 6, 8, 3), 2, dtype=np.uint8)).tolist() == [[0.5, 0.5, 0.5]]
    with pytest.raises(PackageError, match=r"not finite on pixels uint8 \(1, 6, 8, 3\)"):
        session.run(np.zeros((1, 6, 8, 3), dtype=np.uint8))


def test_a_graph_that_fails_says_on_what(tiny: Path) -> None:
    session = create_session((tiny / "model.fp32.onnx").read_bytes())
    pixels, mask = np.zeros((1, 6, 8, 3), dtype=np.uint8), np.ones((1, 1), dtype=np.int64)
    with pytest.raises(
        PackageError, match=r"the graph failed on pixels uint8 \(1, 6, 8, 3\), input_ids int64"
    ) as caught:
        session.run(pixels, np.full((1, 1), 99, dtype=np.int64), mask)
    assert "\n" not in str(caught.value)


# --- options and providers


@pytest.mark.parametrize(("spin", "expected"), [(False, "0"), (True, "1")])
def test_threads_and_spinning_reach_onnx_runtime(
    tiny: Path, fake_runtime: Callable[..., Any], spin: bool, expected: str
) -> None:
    fake = fake_runtime(["cpu"], {"cpu"})
    create_session((tiny / "model.fp32.onnx").read_bytes(), threads=3, spin=spin)
    assert fake.options.intra_op_num_threads == 3
    assert fake.options.inter_op_num_threads == 1
    assert fake.options.get_session_config_entry("session.intra_op.allow_spinning") == expected
    create_session((tiny / "model.fp32.onnx").read_bytes())
    assert fake.options.intra_op_num_threads == available_cores()


@pytest.mark.parametrize(("provider", "pattern"), [("cpu", False), ("directml", False), ("cuda", True)])
def test_memory_is_laid_out_in_advance_only_where_it_helps(
    tiny: Path, fake_runtime: Callable[..., Any], provider: str, pattern: bool
) -> None:
    fake = fake_runtime([provider, "cpu"], {provider, "cpu"})
    create_session((tiny / "model.fp32.onnx").read_bytes(), provider=provider)
    assert fake.options.enable_mem_pattern is pattern
    assert fake.options.enable_cpu_mem_arena is True
    assert fake.options.execution_mode == onnxruntime.ExecutionMode.ORT_SEQUENTIAL


def test_threads_start_at_one(tiny: Path) -> None:
    with pytest.raises(ValueError, match="threads must be 1 or more, found 0"):
        create_session((tiny / "model.fp32.onnx").read_bytes(), threads=0)


def test_another_provider_comes_before_the_cpu(tiny: Path, fake_runtime: Callable[..., Any]) -> None:
    fake = fake_runtime(["cuda", "cpu"], {"cuda", "cpu"})
    session = create_session((tiny / "model.fp32.onnx").read_bytes(), provider="cuda")
    assert session.provider == "cuda"
    assert fake.providers == [[PROVIDERS["cuda"], PROVIDERS["cpu"]]]


def test_a_provider_that_does_not_load_is_an_error(tiny: Path, fake_runtime: Callable[..., Any]) -> None:
    fake_runtime(["cuda", "cpu"], {"cpu"})
    message = "provider 'cuda' did not load: its libraries or its device are missing; also offered here: cpu, auto"
    with pytest.raises(ProviderError, match=f"^{message}$"):
        create_session((tiny / "model.fp32.onnx").read_bytes(), provider="cuda")


def test_a_provider_that_fails_is_an_error_on_one_line(tiny: Path, fake_runtime: Callable[..., Any]) -> None:
    fake_runtime(["cuda", "cpu"], {"cpu"}, broken=True)
    with pytest.raises(ProviderError, match=r"^provider 'cuda' did not load: no device; also offered here: cpu, auto$"):
        create_session((tiny / "model.fp32.onnx").read_bytes(), provider="cuda")


def test_a_library_that_does_not_load_is_named_before_onnx_runtime_is_asked(
    tiny: Path, fake_runtime: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = fake_runtime(["cuda", "cpu"], {"cuda", "cpu"})
    monkeypatch.setattr(session, "load_libraries", lambda name: "libcuda.so.1: gone" if name == "cuda" else None)
    with pytest.raises(ProviderError, match=r"^provider 'cuda' did not load: libcuda.so.1: gone; also "):
        create_session((tiny / "model.fp32.onnx").read_bytes(), provider="cuda")
    assert fake.providers == []
    assert create_session((tiny / "model.fp32.onnx").read_bytes(), provider="auto").provider == "cpu"


def test_distributions_that_overwrite_each_other_are_named(
    tiny: Path, fake_runtime: Callable[..., Any], install: Callable[..., Path]
) -> None:
    fake_runtime(["cuda", "cpu"], {"cpu"})
    install("onnxruntime", "1.32.0")
    install("onnxruntime-gpu", "1.31.1")
    both = "also offered here: cpu, auto; onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1 are installed and overwrite"
    with pytest.raises(ProviderError, match=both):
        create_session((tiny / "model.fp32.onnx").read_bytes(), provider="cuda")


def test_what_decided_the_provider_is_said(fake_runtime: Callable[..., Any]) -> None:
    def load(name: str) -> str:
        if name != "cpu":
            raise ProviderError(f"no {name}")
        return name

    fake_runtime(["cuda", "coreml", "cpu"], set())
    assert first_that_loads("cpu", load) == ("cpu", "as asked")
    assert first_that_loads("auto", load) == ("cpu", "the best that loads here; no cuda; no coreml")
    assert first_that_loads("auto", lambda name: name) == ("cuda", "the best that loads here")


@pytest.mark.parametrize("broken", [False, True])
def test_auto_goes_on_to_the_next_provider(tiny: Path, fake_runtime: Callable[..., Any], broken: bool) -> None:
    fake = fake_runtime(["tensorrt", "cuda", "coreml", "cpu"], {"cpu"}, broken)
    session = create_session((tiny / "model.fp32.onnx").read_bytes(), provider="auto")
    assert session.provider == "cpu"
    assert [names[0] for names in fake.providers] == [PROVIDERS["cuda"], PROVIDERS["coreml"], PROVIDERS["cpu"]]
