"""Graphs that are valid ONNX, or nearly, in a package whose hashes are right: each is refused when it is loaded.

tests/runtime/test_graph_safety.py has the same for single messages, where the onnx library is not installed.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlic_runtime.errors import PackageError
from mlic_runtime.graph import opening as loading
from mlic_runtime.predict.predictor import Predictor

TINY = Path(__file__).parents[1] / "data" / "tiny"
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL

Model = Any  # onnx ships no types
Change = Callable[[Model], object]


@pytest.fixture
def load(tmp_path: Path) -> Callable[[bytes], Predictor]:
    """Load the tiny package with another graph, and the hash of that in its manifest."""

    def do(graph: bytes) -> Predictor:
        folder = Path(shutil.copytree(TINY, tmp_path / "tiny", dirs_exist_ok=True))
        (folder / "model.fp32.onnx").write_bytes(graph)
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        digest = hashlib.sha256(graph).hexdigest()
        manifest["files"]["model.fp32.onnx"].update(sha256=digest, bytes=len(graph))
        (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
        return Predictor.load(folder, precision="fp32", cache=False)

    return do


def tiny_model() -> Model:
    return onnx.load(TINY / "model.fp32.onnx")


def value(name: str, dtype: int = FLOAT, shape: "list[Any] | None" = None) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)


def rename(old: str, new: str) -> Change:
    def change(model: Model) -> None:
        for node in (*model.graph.input, *model.graph.output):
            node.name = new if node.name == old else node.name
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = [new if name == old else name for name in names]

    return change


def retype(name: str, dtype: int, shape: "list[Any]") -> Change:
    def change(model: Model) -> None:
        for node in (*model.graph.input, *model.graph.output):
            if node.name == name:
                node.CopyFrom(value(name, dtype, shape))

    return change


def external(location: str) -> Change:
    """Let the first initializer take its data from a file."""

    def change(model: Model) -> None:
        _to_external(model.graph.initializer[0], location)

    return change


def _to_external(tensor: Any, location: str) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


def external_tensor(location: str) -> Any:
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "hidden")
    _to_external(tensor, location)
    return tensor


def behind_if(hidden: Any) -> Change:
    """Put a node into one branch of an If, which never runs."""

    def change(model: Model) -> None:
        seen = helper.make_node("Identity", ["logits_before"], ["branch"])
        branches = {
            name: helper.make_graph(nodes, name, [], [value("branch")])
            for name, nodes in (("then_branch", [seen]), ("else_branch", [hidden, seen]))
        }
        model.graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))
        _before(model, helper.make_node("If", ["always"], ["logits"], **branches))

    return change


def behind_loop(hidden: Any) -> Change:
    def change(model: Model) -> None:
        nodes = [hidden, helper.make_node("Identity", ["go"], ["goes"]), helper.make_node("Identity", ["x"], ["y"])]
        inputs = [value("turn", INT64, []), value("go", BOOL, []), value("x")]
        body = helper.make_graph(nodes, "body", inputs, [value("goes", BOOL, []), value("y")])
        model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.int64), "turns"))
        _before(model, helper.make_node("Loop", ["turns", "", "logits_before"], ["logits"], body=body))

    return change


def behind_function(hidden: Any) -> Change:
    def change(model: Model) -> None:
        opset = helper.make_opsetid("", 17)
        nodes = [hidden, helper.make_node("Identity", ["x"], ["y"])]
        model.functions.append(helper.make_function("", "Harmless", ["x"], ["y"], nodes, [opset]))
        _before(model, helper.make_node("Harmless", ["logits_before"], ["logits"]))

    return change


def _before(model: Model, node: Any) -> None:
    """Let another node give the logits, out of what gave them."""
    rename("logits", "logits_before")(model)
    model.graph.output[0].name = "logits"
    model.graph.node.append(node)


def custom(model: Model) -> None:
    model.opset_import.append(helper.make_opsetid("evil", 1))
    _before(model, helper.make_node("Run", ["logits_before"], ["logits"], domain="evil"))


def ship_a_function(model: Model) -> None:
    """An operator of a domain of its own, with its definition beside it: it needs no library, and is refused too."""
    opset = helper.make_opsetid("", 17)
    identity = helper.make_node("Identity", ["x"], ["y"])
    model.functions.append(helper.make_function("local", "Harmless", ["x"], ["y"], [identity], [opset]))
    model.opset_import.append(helper.make_opsetid("local", 1))
    _before(model, helper.make_node("Harmless", ["logits_before"], ["logits"], domain="local"))


def twice_the_labels(model: Model) -> None:
    _before(model, helper.make_node("Concat", ["logits_before", "logits_before"], ["logits"], axis=1))
    retype("logits", FLOAT, ["B", 6])(model)


def sparse(model: Model) -> None:
    values, indices = external_tensor("/etc/passwd"), numpy_helper.from_array(np.array([0, 1, 2], np.int64), "at")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [10]))


def huge(*dims: int) -> Change:
    """An initializer that says it is larger than what it holds."""

    def change(model: Model) -> None:
        tensor = TensorProto(name="huge", data_type=FLOAT, dims=dims, raw_data=bytes(4))
        model.graph.initializer.append(tensor)
        _before(model, helper.make_node("Add", ["logits_before", "huge"], ["logits"]))

    return change


NODE = helper.make_node("Run", ["logits_before"], ["unused"], domain="evil")
CONSTANT = helper.make_node("Constant", [], ["unused"], value=external_tensor("../outside.bin"))
OTHER_DOMAIN = "uses operator 'Run' of domain 'evil'"
EXTERNAL = "has a tensor with external data"

INPUTS: "dict[str, tuple[int, list[Any]]]" = {
    "pixels": (TensorProto.UINT8, ["B", 6, 8, 3]),
    "input_ids": (INT64, ["B", "T"]),
}
INPUTS["attention_mask"] = INPUTS["input_ids"]


def drop(name: str) -> Change:
    """Take an input away; the graph has a constant in its place."""

    def change(model: Model) -> None:
        kept = [node for node in model.graph.input if node.name != name]
        del model.graph.input[:]
        model.graph.input.extend(kept)
        dtype, shape = INPUTS[name]
        zeros = np.zeros(
            [side if isinstance(side, int) else 1 for side in shape], helper.tensor_dtype_to_np_dtype(dtype)
        )
        model.graph.initializer.append(numpy_helper.from_array(zeros, name))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *[(rename(name, "other"), "the graph has the inputs .*other.*; expected") for name in INPUTS],
        *[(drop(name), "the graph has the inputs .*; expected") for name in INPUTS],
        *[(retype(name, FLOAT, INPUTS[name][1]), f"input {name} is|cannot load the graph") for name in INPUTS],
        *[(retype(name, INPUTS[name][0], [*INPUTS[name][1], 1]), "of rank|cannot load the graph") for name in INPUTS],
        *[(retype(name, INPUTS[name][0], [2, *INPUTS[name][1][1:]]), "fixed shape|cannot load") for name in INPUTS],
        (retype("pixels", TensorProto.UINT8, ["B", 6, 9, 3]), r"takes pictures of \(6, 9\) pixels"),
        (retype("pixels", TensorProto.UINT8, ["B", 6, 8, 4]), r"expected \(B, H, W, 3\)|cannot load the graph"),
        (retype("pixels", TensorProto.UINT8, ["B", 2**40, 8, 3]), r"takes pictures of \(1099511627776, 8\) pixels"),
        (rename("logits", "scores"), "the graph has the outputs scores; expected logits"),
        (twice_the_labels, "has 6 outputs, but the manifest has 3 labels"),
        (retype("logits", INT64, ["B", 3]), "cannot load the graph"),
        (lambda m: m.graph.output.append(value("seen")), "the graph has the outputs logits, seen; expected logits"),
        (lambda m: m.graph.ClearField("output"), "the graph has the outputs ; expected|cannot load the graph"),
        (lambda m: m.graph.ClearField("node"), "cannot load the graph"),
        (lambda m: m.ClearField("graph"), "holds no ONNX graph"),
        (lambda m: m.ClearField("opset_import"), "cannot load the graph"),
        (lambda m: setattr(m.opset_import[0], "version", 10_000), "cannot load the graph"),
        (lambda m: setattr(m, "ir_version", 10_000), "cannot load the graph"),
        (external("../outside.bin"), EXTERNAL),
        (external("link.bin"), EXTERNAL),
        (external("README.md"), EXTERNAL),
        (external("/etc/passwd"), EXTERNAL),
        (external("*/_ORT_MEM_ADDR_/*"), EXTERNAL),  # how ONNX Runtime marks data that are in its memory already
        (custom, OTHER_DOMAIN),
        (ship_a_function, "uses operator 'Harmless' of domain 'local'"),
        *[(hide(NODE), OTHER_DOMAIN) for hide in (behind_if, behind_loop, behind_function)],
        *[(hide(CONSTANT), EXTERNAL) for hide in (behind_if, behind_loop, behind_function)],
        (sparse, EXTERNAL),
        (huge(2**40), "cannot load the graph"),
        (huge(2**32, 2**32), "cannot load the graph"),
        (huge(-1), "cannot load the graph"),
        (huge(), "is never refused"),
    ],
)
def test_a_graph_that_breaks_the_contract_is_refused_when_it_is_loaded(
    load: Callable[[bytes], Predictor], tmp_path: Path, change: Change, message: str
) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "outside.bin").write_bytes(bytes(1_000))
    (tmp_path / "tiny" / "link.bin").symlink_to(tmp_path / "outside.bin")
    model = tiny_model()
    change(model)
    if message == "is never refused":  # the way of the others, to a graph that does no harm
        load(model.SerializeToString())
        return
    with pytest.raises(PackageError, match=message) as caught:
        load(model.SerializeToString())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tenth", range(10))
def test_a_graph_of_which_the_end_is_missing_is_refused(load: Callable[[bytes], Predictor], tenth: int) -> None:
    graph = tiny_model().SerializeToString()
    with pytest.raises(PackageError, match=r"is not a valid ONNX file|holds no ONNX graph|cannot load the graph"):
        load(graph[: len(graph) * tenth // 10])


def test_what_names_another_file_never_gets_to_onnx_runtime(
    load: Callable[[bytes], Predictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(*arguments: object, **options: object) -> None:
        raise AssertionError("ONNX Runtime was given the graph")

    monkeypatch.setattr(loading, "create_session", create)
    for change in (external("../outside.bin"), custom, sparse, behind_if(CONSTANT), behind_function(NODE)):
        model = tiny_model()
        change(model)
        with pytest.raises(PackageError, match=f"{EXTERNAL}|of domain"):
            load(model.SerializeToString())
