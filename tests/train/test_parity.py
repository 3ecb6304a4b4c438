import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from PIL import Image
from torch import Tensor, nn

from mlic_runtime.errors import MlicError
from mlic_runtime.graph.session import GraphSession, create_session
from mlic_runtime.package.manifest import AgreementSpec, ParitySpec
from mlic_runtime.picture.decode import read_pixels
from mlic_train.config import DataOptions, ModelConfig
from mlic_train.data.splits import Splits, load_splits
from mlic_train.errors import DataError, ExportError
from mlic_train.exporting.graph import export_graph
from mlic_train.exporting.inputs import example_inputs
from mlic_train.exporting.package import ExportOptions, export_package
from mlic_train.exporting.parity import (
    ATOL,
    SHAPES,
    TOLERANCES,
    Tolerance,
    check_parity,
    check_rows,
    parity_table,
)
from mlic_train.measure.collect import collect_splits, run_graph
from mlic_train.measure.predict import Outputs
from mlic_train.models import Hybrid, create_model
from mlic_train.runs.folder import TrainedModel

MODES = ("", "-picture-only", "-caption-only")


class Shifted:
    """A graph's session whose logits are off by `by`."""

    def __init__(self, session: GraphSession, by: float) -> None:
        self.session, self.by = session, by
        self.explains = False
        self.height, self.width, self.num_labels = session.height, session.width, session.num_labels

    def run(self, *inputs: Any) -> npt.NDArray[np.float32]:
        logits = self.session.run(*inputs)
        logits += self.by
        return logits


class DifferentOnPhotographs(nn.Module):
    """The model, but for a hundredth more where the mean pixel is neither that of noise nor zero."""

    def __init__(self, trained: TrainedModel) -> None:
        super().__init__()
        self.model, self.inputs = trained.model, trained.model.inputs
        self.image_size, self.vocab_size = trained.config.model.image_size, trained.config.model.vocab_size

    def forward(self, *inputs: Tensor) -> Tensor:
        mean = inputs[0].float().mean(dim=(1, 2, 3))
        logits: Tensor = self.model(*inputs)
        return logits + 0.01 * ((mean > 50) & (mean < 115)).float()[:, None]


@pytest.fixture
def session(trained: TrainedModel) -> GraphSession:
    return create_session(export_graph(trained.model, 64))


@pytest.fixture
def splits(colours: Path) -> Splits:
    return load_splits(DataOptions(colours))


def compare(
    trained: TrainedModel, session: object, splits: Splits, precision: str = "fp32"
) -> dict[str, AgreementSpec]:
    graph: GraphSession = session  # type: ignore[assignment] # or a stand-in
    expected, found = (collect_splits(trained, run, splits) for run in (trained.run, run_graph(trained, graph)))
    return check_rows(trained, expected, found, precision)


@pytest.fixture
def refused(trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Export a wrong graph over a package: it must be left as it was. Returns the message."""

    def export(graph: bytes, splits: Splits | None = None) -> str:
        folder = tmp_path / "package"
        export_package(trained, folder)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        monkeypatch.setattr("mlic_train.exporting.precisions.export_graph", lambda *_: graph)
        with pytest.raises(MlicError) as error:
            export_package(trained, folder, ExportOptions(version="2.0.0"), splits=splits)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["package", "run"]
        assert "\n" not in str(error.value)
        return str(error.value)

    return export


def edited(graph: bytes, edit: Callable[[onnx.GraphProto], object]) -> bytes:
    model = onnx.load_from_string(graph)
    edit(model.graph)
    data: bytes = model.SerializeToString()
    return data


def rename_output(graph: onnx.GraphProto) -> None:
    graph.output[0].name = "scores"
    graph.node[-1].output[0] = "scores"


def fix_tokens(graph: onnx.GraphProto) -> None:
    for value in graph.input[1:]:
        value.type.tensor_type.shape.dim[1].dim_value = 5


def free_height(graph: onnx.GraphProto) -> None:
    graph.input[0].type.tensor_type.shape.dim[1].dim_param = "H"


def read_through(operator: str, **constants: list[int]) -> Callable[[onnx.GraphProto], None]:
    """The ids and the mask go through an operator first."""

    def edit(graph: onnx.GraphProto) -> None:
        graph.initializer.extend(numpy_helper.from_array(np.array(v), name) for name, v in constants.items())
        for name in ("input_ids", "attention_mask"):
            for node in graph.node:
                node.input[:] = [f"{name}_changed" if given == name else given for given in node.input]
            graph.node.insert(0, helper.make_node(operator, [name, *constants], [f"{name}_changed"]))

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (rename_output, "the graph has the outputs scores; expected logits"),
        (fix_tokens, "the graph's input input_ids has the fixed shape ['B', 5]; export it with dynamic axes"),
        (free_height, "H, W, L of the graph are (None, 16, 3) (None: dynamic), expected (16, 16, 3)"),
        (read_through("Reshape", five=[-1, 5]), "the graph failed on pixels uint8 (1, 16, 16, 3), input_ids int64"),
        (read_through("Slice", start=[0], end=[5], axis=[1]), "parity of fp32 failed at B=3, T=17: logits differ by"),
    ],
)
def test_a_graph_that_breaks_the_contract_is_not_written(
    trained: TrainedModel, refused: Callable[..., str], edit: Callable[[onnx.GraphProto], None], message: str
) -> None:
    assert message in refused(edited(export_graph(trained.model, 64), edit))


@pytest.mark.parametrize("damage", ["caption_labels.bias", "caption.backward_lstm.weight_hh_l0"])
def test_a_graph_of_other_weights_is_not_written(
    trained: TrainedModel, refused: Callable[..., str], damage: str
) -> None:
    other = create_model(trained.config.model)
    other.load_state_dict(trained.model.state_dict())
    other.state_dict()[damage].add_(0.05)
    message = refused(export_graph(other, 64))
    assert message.startswith("parity of fp32 failed at B=")
    assert message.endswith("at most 0.0001 + 0 * |logit| is allowed; nothing was written")


@pytest.mark.parametrize(
    ("rows", "precision", "advice"),
    [
        (9, "int8", ": leave int8 out of --precision, or give val more rows: of 9 rows with 3 labels not one decision"),
        (20, "int8", ": leave int8 out of --precision"),
        (9, "fp32", ""),
    ],
)
def test_a_graph_that_decides_otherwise_says_what_to_do(
    rows: int, precision: str, advice: str, trained: TrainedModel
) -> None:
    logits = np.full((rows, 3), 5.0, dtype=np.float32)
    named, wrong = np.zeros((rows, 3), dtype=np.bool_), logits.copy()
    wrong[:2] = -np.finfo(np.float32).eps if precision == "fp32" else 4.0
    logits[:2] = 0.0 if precision == "fp32" else 5.0
    trained.state.thresholds[:] = [0.5] * 3 if precision == "fp32" else [0.99] * 3
    seen = np.ones(rows, dtype=np.bool_)
    expected, found = ({"val": Outputs(each, named, seen, seen)} for each in (logits, wrong))
    with pytest.raises(ExportError) as caught:
        check_rows(trained, expected, found, precision)
    said = str(caught.value).partition("; nothing was written")[2]
    assert said.removesuffix(" may differ") == advice


@pytest.mark.parametrize(("rows", "tokens"), [(1, 1), (2, 5), (7, 1), (3, 17), (5, 31)])
def test_label_queries_that_read_the_caption_only_export(rows: int, tokens: int, small_model: ModelConfig) -> None:
    torch.manual_seed(0)
    model = create_model(dataclasses.replace(small_model, fusion="cross")).eval()
    assert isinstance(model, Hybrid)
    assert model.interaction is not None
    torch.nn.init.normal_(model.interaction.label_weight)  # it starts at zero, and would hide what it must show
    inputs = example_inputs(model, rows, tokens)
    with torch.inference_mode():
        expected = model(*inputs).numpy()
    found = create_session(export_graph(model, 64)).run(*(tensor.numpy() for tensor in inputs))
    np.testing.assert_allclose(found, expected, atol=ATOL, rtol=0)


def test_a_graph_that_agrees_on_made_up_rows_but_not_on_real_ones_is_not_written(
    trained: TrainedModel, refused: Callable[..., str], splits: Splits
) -> None:
    wrong = export_graph(DifferentOnPhotographs(trained), 64)  # type: ignore[arg-type] # a stand-in
    assert check_parity(trained, create_session(wrong)).max_abs_difference < ATOL
    assert "parity of fp32 failed at val: logits differ by 0.01" in refused(wrong, splits)


def test_the_shapes_cover_what_they_promise(trained: TrainedModel) -> None:
    assert len(SHAPES) >= 5
    assert any(tokens == 1 for _, tokens in SHAPES)
    assert any(batch == 1 for batch, _ in SHAPES)
    assert any(batch == 7 for batch, _ in SHAPES)
    pixels, _, mask = example_inputs(trained.model, 7, 9)
    assert (mask.sum(dim=1) == 0).any()
    assert (pixels.flatten(1).amax(dim=1) == 0).any()
    assert len(set(mask.sum(dim=1).tolist())) > 2


def test_a_difference_below_the_tolerance_that_flips_a_decision_fails(
    trained: TrainedModel, session: GraphSession
) -> None:
    inputs = example_inputs(trained.model, 1, 1, seed=0)
    with torch.inference_mode():
        logits = trained.model(*inputs).double()
    trained.state.thresholds[1] = float(torch.sigmoid(logits - 2e-5)[0, 1])
    message = (
        r"made-up rows: 0\.980% of the label decisions differ, at most 0\.000% may; the first is 'green' in row 0, "
        r"with probability (0\.\d+) in PyTorch, (0\.\d+) in the graph and the threshold"
    )
    with pytest.raises(ExportError, match=message):
        check_parity(trained, Shifted(session, -5e-5))  # type: ignore[arg-type] # a stand-in


def test_so_does_one_on_a_real_row(trained: TrainedModel, session: GraphSession, splits: Splits) -> None:
    expected = collect_splits(trained, trained.run, splits)["val-caption-only"].logits
    trained.state.thresholds[2] = 1 / (1 + float(np.exp(2e-5 - expected[4, 2].astype(np.float64))))
    with pytest.raises(ExportError, match=r"failed at val-caption-only: .* the first is 'blue' in row \d, with"):
        compare(trained, Shifted(session, -5e-5), splits)


def test_what_is_not_a_number_in_pytorch_fails(trained: TrainedModel, session: GraphSession) -> None:
    trained.model.get_parameter("caption_labels.bias").data.fill_(float("nan"))
    with pytest.raises(ExportError, match="logits differ by nan"):
        check_parity(trained, session)


def test_a_precision_has_tolerances_of_its_own(
    trained: TrainedModel, session: GraphSession, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlic_train.exporting.parity.TOLERANCES", {**TOLERANCES, "int8": Tolerance(0.02, 0.001, 0.9)})
    inputs = example_inputs(trained.model, 1, 1, seed=0)
    with torch.inference_mode():
        trained.state.thresholds[0] = float(torch.sigmoid(trained.model(*inputs).double() - 0.005)[0, 0])
    coarse: GraphSession = Shifted(session, -0.01)  # type: ignore[assignment] # a stand-in
    with pytest.raises(ExportError, match=r"parity of fp32 failed at B=1, T=1: logits differ by 0.01"):
        check_parity(trained, coarse)
    found = check_parity(trained, coarse, "int8")
    assert (found.atol, found.rtol) == (0.02, 0.001)
    assert found.max_abs_difference == pytest.approx(0.01, abs=1e-4)
    assert 0.9 < found.equal_decisions < 1
    agreements = compare(trained, coarse, splits, "int8")
    assert agreements["test"].max_abs_difference == pytest.approx(0.01, abs=1e-4)


def test_every_real_row_is_compared_in_every_mode(trained: TrainedModel, session: GraphSession, splits: Splits) -> None:
    found = compare(trained, session, splits)
    captions = {"val": 10, "test": 8}  # every sixth row has none
    expected = {f"{name}{mode}": rows for name, rows in (("val", 12), ("test", 9)) for mode in MODES}
    expected |= {f"{name}-caption-only": rows for name, rows in captions.items()}
    assert {name: agreement.rows for name, agreement in found.items()} == expected
    assert all(agreement.equal_decisions == 1.0 for agreement in found.values())
    assert 0 < max(agreement.max_abs_difference for agreement in found.values()) <= ATOL


def test_a_model_without_captions_is_compared_in_one_mode(cnn: TrainedModel, splits: Splits) -> None:
    found = compare(cnn, create_session(export_graph(cnn.model, 64)), splits)
    assert found.keys() == {"val", "test"}


def test_a_picture_is_decoded_once_for_all_modes(
    trained: TrainedModel, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []

    def count(path: Path, *arguments: Any) -> Any:
        decoded.append(path)
        return read_pixels(path, *arguments)

    monkeypatch.setattr("mlic_train.batches.dataset.read_pixels", count)
    collect_splits(trained, trained.run, splits)
    assert len(decoded) == len(set(decoded)) == 12 + 9


def test_data_of_other_labels_is_refused(
    make_trained: Callable[..., TrainedModel], splits: Splits, tmp_path: Path
) -> None:
    other = make_trained(ModelConfig(labels=("a", "b", "c"), image_size=16), "other")
    with pytest.raises(DataError, match="give the right --labels"):
        export_package(other, tmp_path / "package", splits=splits)


def test_the_table_has_a_line_for_each_check() -> None:
    real = {"val": AgreementSpec(492, 7.5e-6, 1.0), "val-caption-only": AgreementSpec(480, 0.031, 0.99996)}
    parity = {"fp32": ParitySpec(34, 6.2e-06, 1.0, shapes=6, atol=1e-4, rtol=0.0, splits=real)}
    assert parity_table(parity).splitlines() == [
        "precision  check                   rows  max |difference|  equal decisions",
        "fp32       names and types            -                 -                -",
        "fp32       axes                       -                 -                -",
        "fp32       6 (B, T) shapes           34           6.2e-06         100.000%",
        "fp32       val                      492           7.5e-06         100.000%",
        "fp32       val-caption-only         480             0.031          99.996%",
    ]


def test_a_black_picture_is_none_on_both_sides(
    trained: TrainedModel, session: GraphSession, splits: Splits, tmp_path: Path
) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "black.png")
    records = tuple(dataclasses.replace(record, image=tmp_path / "black.png") for record in splits.val.records)
    black = dataclasses.replace(splits, val=dataclasses.replace(splits.val, records=records))
    assert compare(trained, session, black)["val"].max_abs_difference <= ATOL
    found = collect_splits(trained, trained.run, black)
    captions = found["val"].has_caption
    assert np.array_equal(found["val"].logits[captions], found["val-caption-only"].logits)
