import dataclasses
import io
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch

from mlic_runtime.graph.session import create_session
from mlic_runtime.predict.prediction import sigmoid
from mlic_train.captions.tokenizer import train_tokenizer, vocabulary_size
from mlic_train.config import DataOptions, ModelConfig, TrainConfig
from mlic_train.data.splits import Splits, load_splits
from mlic_train.exporting.graph import export_graph
from mlic_train.measure.calibration import calibrate, fit_calibration
from mlic_train.measure.collect import collect, collect_splits, run_graph, score
from mlic_train.measure.metrics import compute_metrics
from mlic_train.measure.thresholds import fit_thresholds
from mlic_train.models import create_model
from mlic_train.models.calibration import BOTH, CAPTION_ONLY, PICTURE_ONLY, Calibration
from mlic_train.runs.folder import BEST_NAME, RunConfig, State, TrainedModel, load_checkpoint, load_trained
from mlic_train.training.run import resume_run, train_run

Logits = npt.NDArray[np.float64]
Truth = npt.NDArray[np.bool_]
PICTURE = torch.tensor([True, True, False, False])
CAPTION = torch.tensor([True, False, True, False])


@pytest.fixture(scope="module")
def splits(colours: Path) -> Splits:
    return load_splits(DataOptions(colours))


@pytest.fixture
def module() -> Calibration:
    """Other numbers in every mode and label."""
    calibration = Calibration(2)
    calibration.empty_odds.fill_(0.3)
    for mode in (BOTH, PICTURE_ONLY, CAPTION_ONLY):
        calibration.set(mode, torch.tensor([1.5, 2.5]) + mode, torch.tensor([0.25, -0.75]) * (mode + 1))
    return calibration


def sample(rows: int, seed: int, labels: int = 6) -> tuple[Logits, Truth]:
    """Logits whose sigmoid is the labels' probability, and labels drawn from it; the first is surely in every row."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1.5, 2.0, (rows, labels))
    targets = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    logits[:, 0], targets[:, 0] = 30.0, True
    return logits, targets


def test_fewer_empty_rows_is_bayes_rule() -> None:
    logits = torch.tensor([[-1.0, 0.5, -3.0], [-6.0, -5.0, -7.0], [4.0, -9.0, -2.0]])
    calibration = Calibration(3)
    calibration.empty_odds.fill_(0.25)
    p = torch.sigmoid(logits.double())
    none = (1 - p).prod(dim=1, keepdim=True)
    # Rows without any label weigh a quarter, all others as before; none of the labels is in an empty row.
    expected = p / (1 - none + 0.25 * none)
    shifted = torch.sigmoid(calibration(logits, torch.ones(3), torch.ones(3)).double())
    torch.testing.assert_close(shifted, expected, atol=1e-6, rtol=0)
    assert (shifted > p).all()


def test_as_many_empty_rows_as_in_training_change_nothing() -> None:
    logits = torch.linspace(-30, 30, 12).reshape(4, 3)
    assert torch.equal(Calibration(3).with_fewer_empty_rows(logits), logits)


def test_rows_that_are_surely_empty_stay_finite() -> None:
    calibration = Calibration(3)
    calibration.empty_odds.fill_(0.001)
    shifted = calibration.with_fewer_empty_rows(torch.full((1, 3), -80.0))
    assert torch.isfinite(shifted).all()
    assert (shifted < -70).all()


def log_loss(logits: Logits, targets: Truth) -> float:
    return float((np.logaddexp(0, logits) - targets * logits).mean())


def ece(logits: Logits, targets: Truth) -> float:
    return compute_metrics(sigmoid(logits), targets, np.full(targets.shape[1], 0.5))["ece"]


def trained_model(config: ModelConfig, splits: Splits) -> TrainedModel:
    """A model that was never trained, with a tokenizer."""
    tokenizer = train_tokenizer(caption for record in splits.train.records for caption in record.captions)
    config = dataclasses.replace(config, vocab_size=vocabulary_size(tokenizer))
    torch.manual_seed(0)
    model = create_model(config).eval()
    return TrainedModel(
        Path(), RunConfig(config, TrainConfig()), model, tokenizer if config.reads_captions else None, State()
    )


def test_it_starts_as_the_identity_and_is_not_trained() -> None:
    calibration = Calibration(2)
    logits = torch.randn(4, 2)
    assert torch.equal(calibration(logits, PICTURE, CAPTION), logits)
    assert not list(calibration.parameters())
    saved = calibration.state_dict()
    assert saved["scale"].shape == saved["bias"].shape == (3, 2)


def test_every_row_gets_the_numbers_of_its_mode(module: Calibration) -> None:
    module.empty_odds.fill_(1.0)
    logits = torch.tensor([[1.0, 2.0]]).expand(4, 2)
    found = module(logits, PICTURE, CAPTION)
    assert found.tolist() == [
        [1.5 * 1 + 0.25, 2.5 * 2 - 0.75],
        [2.5 * 1 + 0.50, 3.5 * 2 - 1.50],
        [3.5 * 1 + 0.75, 4.5 * 2 - 2.25],
        [3.5 * 1 + 0.75, 4.5 * 2 - 2.25],  # neither counts as a caption alone
    ]
    assert torch.equal(module(logits, PICTURE.float(), CAPTION.float()), found)


def test_reset_gives_the_identity_back(module: Calibration) -> None:
    module.reset()
    logits = torch.randn(4, 2)
    assert torch.equal(module(logits, PICTURE, CAPTION), logits)


@pytest.mark.parametrize(
    ("scale", "bias"), [([1.0, 0.0], [0.0, 0.0]), ([1.0, torch.inf], [0.0, 0.0]), ([1.0, 1.0], [0.0, torch.nan])]
)
def test_numbers_that_would_break_the_order_are_refused(scale: list[float], bias: list[float]) -> None:
    with pytest.raises(ValueError, match="finite scales greater than 0"):
        Calibration(2).set(BOTH, torch.tensor(scale), torch.tensor(bias))


@pytest.mark.parametrize("rows", [1, 4, 9])
def test_onnx_runtime_computes_the_same_at_any_batch(module: Calibration, rows: int) -> None:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter is not the default
        torch.onnx.export(
            module,
            (torch.zeros(2, 2), torch.tensor([True, False]), torch.tensor([True, True])),
            buffer,  # type: ignore[arg-type] # a stream is accepted
            input_names=["logits", "picture", "caption"],
            dynamic_axes={name: {0: "B"} for name in ("logits", "picture", "caption")},
            opset_version=17,
            dynamo=False,
        )
    graph = onnx.load_from_string(buffer.getvalue())
    assert "MatMul" not in {node.op_type for node in graph.graph.node}
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    logits = torch.randn(rows, 2, generator=torch.Generator().manual_seed(0))
    picture, caption = PICTURE.repeat(3)[:rows], CAPTION.repeat(3)[:rows]
    (found,) = session.run(None, {"logits": logits.numpy(), "picture": picture.numpy(), "caption": caption.numpy()})
    np.testing.assert_allclose(found, module(logits, picture, caption).numpy(), rtol=1e-6, atol=1e-6)


def test_platt_repairs_what_is_miscalibrated() -> None:
    factor, shift = np.linspace(0.4, 2.5, 6), np.linspace(-2.0, 2.0, 6)
    (logits, targets), (unseen, truth) = sample(800, seed=0), sample(4000, seed=1)
    scale, bias = fit_calibration((logits - shift) / factor, targets, "platt")
    before = (unseen - shift) / factor
    after = scale * before + bias
    assert log_loss(after, truth) < log_loss(before, truth) - 0.03
    assert ece(after, truth) < ece(before, truth) / 3
    assert log_loss(after, truth) < log_loss(unseen, truth) + 0.01  # close to the best


def test_platt_nearly_leaves_a_calibrated_model_alone() -> None:
    scale, bias = fit_calibration(*sample(1000, seed=0), "platt")
    np.testing.assert_allclose(scale, 1.0, atol=0.15)
    np.testing.assert_allclose(bias, 0.0, atol=0.2)


def test_a_label_with_few_positives_stays_near_the_shared_numbers() -> None:
    logits, targets = sample(800, seed=0, labels=12)
    logits = logits * 2.0 - 1.0
    targets[:, 1] = np.arange(800) < 2
    logits[:, 1] = np.where(targets[:, 1], 2.0, -15.0)  # without a mistake: any larger scale would fit better
    targets[:, 2:4] = False
    scale, bias = fit_calibration(logits, targets, "platt")
    assert scale[2] == scale[3] == scale[0]
    assert bias[2] == bias[3] == bias[0]
    assert scale[2] == pytest.approx(0.5, abs=0.1)  # 2 z - 1 back to z
    assert bias[2] == pytest.approx(0.5, abs=0.1)
    assert scale[1] == pytest.approx(scale[2], rel=0.25)
    assert bias[1] == pytest.approx(bias[2], abs=0.25)


def test_labels_that_are_told_apart_without_a_mistake_do_not_run_off() -> None:
    targets = np.tile(np.eye(3, dtype=bool), (10, 1))
    logits = np.where(targets, 4.0, -4.0)
    for kind in ("temperature", "platt"):
        scale, bias = fit_calibration(logits, targets, kind)
        assert (np.abs(np.log(scale)) < 1).all()
        assert (np.abs(bias) < 1).all()


def test_scales_stay_positive_where_the_model_is_wrong_throughout() -> None:
    logits, targets = sample(500, seed=0)
    scale, _ = fit_calibration(-logits, targets, "platt")
    assert (scale > 0).all()
    assert (scale < 0.3).all()


def test_temperature_is_one_scale_and_no_bias() -> None:
    logits, targets = sample(1000, seed=0)
    scale, bias = fit_calibration(3.0 * logits, targets, "temperature")
    assert len(set(scale.tolist())) == 1
    assert scale[0] == pytest.approx(1 / 3, abs=0.03)
    assert bias.tolist() == [0.0] * 6


def test_none_and_nothing_to_learn_from_give_the_identity() -> None:
    logits, targets = sample(50, seed=0)
    for given, truth, kind in (
        (3 * logits, targets, "none"),
        (3 * logits, np.zeros_like(targets), "platt"),
        (logits[:0], targets[:0], "platt"),
    ):
        scale, bias = fit_calibration(given, truth, kind)
        assert scale.dtype == bias.dtype == np.float32
        assert (scale.tolist(), bias.tolist()) == ([1.0] * 6, [0.0] * 6)


def test_rows_without_a_label_do_not_count() -> None:
    logits, targets = sample(200, seed=0)
    more = np.concatenate([logits, np.full((100, 6), 3.0)])
    for plain, padded in zip(
        fit_calibration(logits, targets, "platt"),
        fit_calibration(more, np.concatenate([targets, np.zeros((100, 6), dtype=bool)]), "platt"),
        strict=True,
    ):
        np.testing.assert_array_equal(plain, padded)


@pytest.mark.parametrize("name", ["hybrid", "cnn"])
def test_the_corrected_outputs_are_those_of_another_run_of_the_model(
    splits: Splits, small_model: ModelConfig, name: str
) -> None:
    trained = trained_model(dataclasses.replace(small_model, name=name), splits)
    raw = collect(trained, trained.run, splits.val.records)
    corrected = calibrate(trained.model.calibration, raw, "platt")
    again = collect(trained, trained.run, splits.val.records)
    assert (
        corrected.keys() == again.keys() == ({"both", "picture-only", "caption-only"} if name == "hybrid" else {"both"})
    )
    for mode, rows in again.items():
        np.testing.assert_allclose(corrected[mode].logits, rows.logits, atol=1e-5)
        assert np.abs(rows.logits - raw[mode].logits).max() > 0.05
    fitted = [index for index in range(3) if not bool((trained.model.calibration.scale[index] == 1).all())]
    assert fitted == ([BOTH, PICTURE_ONLY, CAPTION_ONLY] if name == "hybrid" else [PICTURE_ONLY])


def test_a_run_ends_calibrated_and_its_graph_is_too(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    train_run(tmp_path / "run", small_model, dataclasses.replace(small_train, epochs=2), splits)
    trained = load_trained(tmp_path / "run")
    assert bool((trained.model.calibration.scale != 1).all())
    session = create_session(export_graph(trained.model, small_model.max_length))
    rows = collect_splits(trained, run_graph(trained, session), splits)
    of_graph = {key: score(outputs, trained.state.thresholds) for key, outputs in rows.items()}
    assert of_graph.keys() == trained.state.metrics.keys()
    for split, metrics in trained.state.metrics.items():
        assert of_graph[split] == pytest.approx(metrics, abs=1e-3), split
        assert metrics["samples_f1_low"] <= metrics["samples_f1"] <= metrics["samples_f1_high"]


def test_calibrating_a_finished_run_again_changes_nothing(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    folder = tmp_path / "run"
    train_run(folder, small_model, dataclasses.replace(small_train, epochs=1), splits)
    before = load_checkpoint(folder / BEST_NAME)
    resume_run(folder, splits)
    after = load_checkpoint(folder / BEST_NAME)
    assert after.state == before.state
    for name, tensor in before.model.items():
        torch.testing.assert_close(tensor, after.model[name], rtol=0, atol=0, msg=name)


def test_a_run_without_calibration_keeps_the_logits_and_has_the_thresholds_asked_for(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    config = dataclasses.replace(small_train, epochs=1, calibration="none", threshold_for="recall=0.9")
    train_run(tmp_path / "run", small_model, config, splits)
    trained = load_trained(tmp_path / "run")
    assert bool((trained.model.calibration.scale == 1).all())
    assert bool((trained.model.calibration.bias == 0).all())
    val = collect(trained, trained.run, splits.val.records)["both"]
    expected = fit_thresholds(sigmoid(val.logits), val.targets, "recall=0.9")
    assert trained.state.thresholds == pytest.approx(expected.tolist())
    assert trained.state.thresholds != pytest.approx(fit_thresholds(sigmoid(val.logits), val.targets).tolist())
