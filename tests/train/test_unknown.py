"""Labels that a row neither has nor lacks count nowhere: not in training, not in thresholds, not in metrics."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from mlic_train.batches import dataset
from mlic_train.batches.dataset import Batch, Collate, Example, Examples, batch_loader, target_of
from mlic_train.config import LOSSES, DataOptions, Distillation, ModelConfig, TrainConfig
from mlic_train.data import Record, fingerprint, summarise
from mlic_train.data.splits import Splits, load_splits
from mlic_train.errors import DataError
from mlic_train.measure.bootstrap import average_precision, bootstrap_intervals, weighted_metrics
from mlic_train.measure.calibration import fit_calibration
from mlic_train.measure.collect import collect
from mlic_train.measure.metrics import compute_metrics
from mlic_train.measure.scored import scored_rows
from mlic_train.measure.thresholds import fit_thresholds
from mlic_train.models import Logits
from mlic_train.runs.folder import BEST_NAME, LAST_NAME, State, TrainedModel, load_checkpoint
from mlic_train.training.distillation import read_soft_labels, teach, write_soft_labels
from mlic_train.training.losses import create_loss, positive_weight, total_loss
from mlic_train.training.run import train_run
from mlic_train.training.teacher import load_teachers, soft_labels
from tests.unknown_labels import forget

Sample = tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]
HALF = np.full(3, 0.5)
# 1 and 0: the row has the label, or lacks it; -1: unknown.
TRUTH = np.array([[1, 0, 1], [0, 1, -1], [1, -1, -1], [0, -1, 0], [-1, -1, -1], [0, 0, 0], [0, 0, -1]])
SAID = np.array(
    [
        [0.9, 0.2, 0.3],
        [0.4, 0.8, 0.9],
        [0.7, 0.6, 0.6],
        [0.6, 0.1, 0.7],
        [0.9, 0.9, 0.9],
        [0.6, 0.1, 0.7],
        [0.1, 0.2, 0.9],
    ],
    dtype=np.float32,
)
# What is known of the rows that are scored: not the fifth, which says nothing, and not the sixth, a negative.
COUNTED = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (3, 0), (3, 2), (6, 0), (6, 1)]


@pytest.fixture(scope="module")
def splits(colours: Path) -> Splits:
    return forget(load_splits(DataOptions(colours)))


def sample(rows: int = 80, seed: int = 0) -> Sample:
    """Scores with ties, targets, and what is known of them; the last label is unknown everywhere."""
    rng = np.random.default_rng(seed)
    targets = rng.random((rows, 5)) < 0.4
    probabilities = np.clip(0.3 + 0.3 * targets + rng.normal(0, 0.2, targets.shape), 0, 1)
    known = rng.random(targets.shape) < 0.6
    known[:, 4] = False
    return np.round(probabilities, 1).astype(np.float32), targets, known


def test_metrics_by_hand() -> None:
    metrics = compute_metrics(SAID, TRUTH == 1, HALF, TRUTH >= 0)
    assert metrics["rows"] == 5
    # Of what is known: {0} of {0, 2}, {1} of {1}, {0} of {0}, {0, 2} of nothing, nothing of nothing.
    assert metrics["samples_f1"] == pytest.approx((2 / 3 + 1 + 1 + 0 + 1) / 5, abs=1e-5)
    assert metrics["micro_f1"] == pytest.approx(2 * 3 / (5 + 4), abs=1e-5)
    assert metrics["macro_f1"] == pytest.approx((2 * 2 / (3 + 2) + 1 + 0) / 3, abs=1e-5)
    assert metrics["map"] == pytest.approx((1 + 1 + 1 / 2) / 3, abs=1e-5)
    assert (metrics["negatives"], metrics["false_labels_per_negative"], metrics["unknown"]) == (1, 2, 8)
    right = [SAID[entry] if TRUTH[entry] == 1 else 1 - SAID[entry] for entry in COUNTED]
    assert metrics["log_loss"] == pytest.approx(-np.log(right).mean(), abs=1e-5)
    bins: dict[int, list[float]] = {}
    for entry in COUNTED:
        bins.setdefault(int(SAID[entry] * 15), []).append(float(SAID[entry]) - TRUTH[entry])
    assert metrics["ece"] == pytest.approx(sum(abs(sum(one)) for one in bins.values()) / len(COUNTED), abs=1e-5)


def test_rows_that_are_scored() -> None:
    assert scored_rows(TRUTH == 1, TRUTH >= 0).tolist() == [True, True, True, True, False, False, True]
    assert scored_rows(TRUTH == 1).tolist() == [True, True, True, False, False, False, False]


def test_where_all_is_known_nothing_changes() -> None:
    probabilities, targets, _ = sample()
    every, thresholds = np.full(targets.shape, True), np.full(5, 0.5)
    assert compute_metrics(probabilities, targets, thresholds, every) == compute_metrics(
        probabilities, targets, thresholds
    )
    intervals = bootstrap_intervals(probabilities, targets, thresholds, 20)
    assert bootstrap_intervals(probabilities, targets, thresholds, 20, known=every) == intervals
    assert (fit_thresholds(probabilities, targets, known=every) == fit_thresholds(probabilities, targets)).all()
    logits = probabilities * 4 - 2
    with_mask, without = (fit_calibration(logits, targets, "platt", known) for known in (every, None))
    np.testing.assert_array_equal(with_mask, without)


def test_only_rows_of_which_nothing_or_no_label_is_known() -> None:
    rows = [3, 4, 5]
    metrics = compute_metrics(SAID[rows], TRUTH[rows] == 1, HALF, TRUTH[rows] >= 0)
    assert metrics == {"rows": 1, "negatives": 1, "false_labels_per_negative": 2, "unknown": 4}
    assert bootstrap_intervals(SAID[rows], TRUTH[rows] == 1, HALF, known=TRUTH[rows] >= 0) == {}


def test_what_lies_under_unknown_entries_changes_no_number() -> None:
    probabilities, targets, known = sample()
    rng = np.random.default_rng(1)
    others = np.where(known, probabilities, rng.random(targets.shape, dtype=np.float32))
    wrong = targets ^ (~known & (rng.random(targets.shape) < 0.7))
    thresholds = np.full(5, 0.5)
    numbers: list[Callable[[Any, Any], Any]] = [
        lambda p, t: compute_metrics(p, t, thresholds, known),
        lambda p, t: bootstrap_intervals(p, t, thresholds, 50, known=known),
        *(
            lambda p, t, goal=goal: fit_thresholds(p, t, goal, known).tolist()
            for goal in ("samples_f1", "micro_f1", "precision=0.8", "recall=0.8")
        ),
        *(
            lambda p, t, kind=kind: [part.tolist() for part in fit_calibration(p * 4 - 2, t, kind, known)]
            for kind in ("temperature", "platt")
        ),
    ]
    for number in numbers:
        assert number(others, wrong) == number(probabilities, targets)
        assert number(probabilities, targets) != number(probabilities, wrong & False)  # and it can change


def test_weights_count_rows_with_unknown_labels_too() -> None:
    probabilities, targets, known = sample(12)
    kept = scored_rows(targets, known)
    probabilities, targets, known = probabilities[kept], targets[kept], known[kept]
    rows, thresholds = len(targets), np.full(5, 0.5)
    weights = np.random.default_rng(0).multinomial(rows, np.full(rows, 1 / rows), size=30)
    found = weighted_metrics(probabilities, targets, thresholds, weights, known)
    for index, counts in enumerate(weights):
        said, true = probabilities.repeat(counts, axis=0), targets.repeat(counts, axis=0)
        expected = compute_metrics(said, true, thresholds, known.repeat(counts, axis=0))
        for name, values in found.items():
            assert values[index] == pytest.approx(expected[name], abs=1e-5), name


def test_draws_without_any_label_have_no_average_precision() -> None:
    targets = np.array([[True, False], [False, False], [False, False]])
    known = np.array([[True, True], [True, False], [True, False]])
    said = np.array([[0.9, 0.1], [0.2, 0.1], [0.8, 0.1]])
    found = weighted_metrics(said, targets, np.full(2, 0.5), np.array([[1, 1, 1], [0, 2, 1]]), known)
    assert found["map"][0] == 1.0
    assert np.isnan(found["map"][1])
    assert found["micro_f1"].tolist() == [2 / 3, 0]
    assert bootstrap_intervals(said, targets, np.full(2, 0.5), known=known)["map_low"] == 1.0


@pytest.mark.parametrize("goal", ["samples_f1", "micro_f1", "precision=0.9", "recall=0.9"])
def test_thresholds_where_one_label_of_each_row_was_looked_at(goal: str) -> None:
    """Rows that lack the one label that is known of them count; else every threshold would be the lowest."""
    rng = np.random.default_rng(0)
    targets = rng.random((3000, 3)) < 0.4
    probabilities = np.where(targets, 0.45, 0.25) + rng.normal(0, 0.02, targets.shape)
    known = np.eye(3, dtype=bool)[rng.integers(3, size=3000)]
    thresholds = fit_thresholds(probabilities, targets, goal, known)
    assert ((thresholds > 0.27) & (thresholds < 0.45)).all()


@pytest.mark.parametrize("goal", ["samples_f1", "micro_f1", "precision=0.8", "recall=0.8"])
def test_a_label_that_is_unknown_everywhere_gets_what_one_without_positives_gets(goal: str) -> None:
    probabilities, targets, known = sample(200)
    known[:, 3:] = [True, False]
    targets[:, 3] = False
    thresholds = fit_thresholds(probabilities, targets, goal, known)
    assert thresholds[3] == thresholds[4]
    scale, bias = fit_calibration(probabilities * 4 - 2, targets, "platt", known)
    assert (scale[3], bias[3]) == (scale[4], bias[4])
    metrics = compute_metrics(probabilities, targets, thresholds, known)
    rows = scored_rows(targets, known)
    areas = []
    for label in range(3):  # the other two occur nowhere
        here = rows & known[:, label]
        counts = np.ones((here.sum(), 1))
        areas.append(average_precision(probabilities[here, label], targets[here, label], counts)[0])
    assert metrics["map"] == pytest.approx(np.mean(areas), abs=1e-5)


def test_a_temperature_is_that_of_the_known_entries() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (300, 4))
    targets = rng.random(logits.shape) < 1 / (1 + np.exp(-0.4 * logits))
    logits[:, 0], targets[:, 0] = 30.0, True  # so that each row has a label; a label in all rows is not fitted
    known = rng.random(logits.shape) < 0.5
    known[:, 0] = True
    entries = known[:, 1:]
    alone = np.stack([np.full(entries.sum(), 30.0), logits[:, 1:][entries]], axis=1)
    truth = np.stack([np.full(entries.sum(), True), targets[:, 1:][entries]], axis=1)
    scale, bias = fit_calibration(logits, targets, "temperature", known)
    np.testing.assert_allclose(scale, fit_calibration(alone, truth, "temperature")[0][0], rtol=1e-5)
    assert (bias == 0).all()


LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0], [1.0, 1.5, -0.5]])
TARGETS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.3, 0.0, 1.0]])
KNOWN = torch.tensor([[True, False, True], [False, True, True], [True, True, False]])


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_the_mean_over_known_entries(name: str, smoothing: float, weighed: bool) -> None:
    weight = torch.tensor([0.5, 2.0, 3.0]) if weighed else None
    expected = torch.tensor(0.0)
    for label in range(3):
        rows = KNOWN[:, label]
        alone = create_loss(name, smoothing, None if weight is None else weight[label : label + 1])
        expected += rows.sum() * alone(LOGITS[rows, label, None], TARGETS[rows, label, None])
    loss = create_loss(name, smoothing, weight)
    torch.testing.assert_close(loss(LOGITS, TARGETS, KNOWN), expected / KNOWN.sum())
    wrong = torch.where(KNOWN, TARGETS, torch.nan)
    assert torch.equal(loss(LOGITS, wrong, KNOWN), loss(LOGITS, TARGETS, KNOWN))


@pytest.mark.parametrize("name", LOSSES)
def test_no_gradient_comes_from_unknown_entries(name: str) -> None:
    logits = torch.tensor([[2.0, 80.0], [-80.0, 0.5]], requires_grad=True)
    targets, loss = torch.tensor([[1.0, torch.nan], [torch.nan, 0.0]]), create_loss(name)
    (gradient,) = torch.autograd.grad(loss(logits, targets, torch.eye(2) > 0), logits)
    assert ((gradient != 0) == (torch.eye(2) > 0)).all()
    nothing = loss(logits, targets, torch.zeros(2, 2) > 0)
    assert nothing == 0
    assert (torch.autograd.grad(nothing, logits)[0] == 0).all()


def test_losses_of_each_input_are_over_its_known_entries() -> None:
    bce = create_loss("bce")
    mask = torch.tensor([[1, 1], [0, 0], [1, 0]])
    batch = Batch(None, None, torch.tensor([True, True, False]), mask, mask, TARGETS, KNOWN)
    logits = Logits(LOGITS, LOGITS + 1, LOGITS - 1)
    own = [
        rows_known.sum() / KNOWN.sum() * bce(own[rows], TARGETS[rows], rows_known)
        for own, rows in ((LOGITS + 1, [0, 1]), (LOGITS - 1, [0, 2]))
        for rows_known in (KNOWN[rows],)
    ]
    torch.testing.assert_close(total_loss(bce, logits, batch, 0.5), bce(LOGITS, TARGETS, KNOWN) + 0.5 * sum(own))
    nothing = dataclasses.replace(batch, known=torch.zeros_like(KNOWN))
    assert total_loss(bce, logits, nothing, 0.5) == 0


def record(labels: tuple[int, ...], unknown: tuple[int, ...] = ()) -> Record:
    return Record(None, None, ("a",), labels, Path("x.csv"), 1, unknown=unknown)


def test_balance_counts_known_entries() -> None:
    rows = [record((0,), (1,)), record((0,), (1, 2)), record((1,), (0,)), record((), (0,)), record(())]
    weight = positive_weight(rows, 3, balance=1.0)
    assert weight is not None
    torch.testing.assert_close(weight, torch.tensor([1 / 2, 2 / 1, 1.0]))  # of 3, of 3, never there


def test_batches_say_what_is_known(splits: Splits) -> None:
    records = splits.train.records[:6]
    examples = Examples([dataclasses.replace(each, image=None) for each in records], 3, None)  # type: ignore[arg-type] # no picture
    (batch,) = batch_loader(examples, None, [[(0, index) for index in range(6)]])
    assert batch.known.dtype == torch.bool
    assert batch.known.tolist() == [[label not in each.unknown for label in range(3)] for each in records]
    assert not (batch.targets > 0)[~batch.known].any()
    whole = [dataclasses.replace(each, image=None, unknown=()) for each in records]
    (batch,) = batch_loader(Examples(whole, 3, None), None, [[(0, 0), (0, 1)]])  # type: ignore[arg-type] # as above
    assert batch.known is None


def test_a_mixed_target_is_known_where_both_are() -> None:
    masks = [np.array([True, True, False, False]), np.array([True, False, True, False])]
    examples = [
        Example(np.full((2, 2, 3), 9 + i, np.uint8), None, None, np.eye(4, dtype=np.float32)[i], (0, i), mask)
        for i, mask in enumerate(masks)
    ]
    config = TrainConfig(mixup=1.0)
    mixed = set()
    for seed in range(8):
        batch = Collate(None, dataclasses.replace(config, seed=seed))(examples)
        plain = Collate(None, dataclasses.replace(config, seed=seed))(
            [dataclasses.replace(each, known=None) for each in examples]
        )
        assert plain.known is None
        assert torch.equal(batch.targets, plain.targets)
        assert batch.known is not None
        changed = not torch.equal(batch.targets, torch.eye(4)[:2])
        mixed.add(changed)
        both = [True, False, False, False]
        assert batch.known.tolist() == ([both, both] if changed else [masks[0].tolist(), masks[1].tolist()])
    assert mixed == {True, False}


def finished(folder: Path, model: ModelConfig, config: TrainConfig, splits: Splits) -> tuple[State, list[str]]:
    lines: list[str] = []
    return train_run(folder, model, config, splits, log=lines.append), lines


@pytest.mark.parametrize("loss", ["bce", "multilabel_soft_margin", "asymmetric"])
def test_training_is_the_same_to_the_bit_whatever_lies_under_unknown_entries(
    tmp_path: Path,
    splits: Splits,
    small_model: ModelConfig,
    small_train: TrainConfig,
    loss: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = dataclasses.replace(
        small_train, loss=loss, label_smoothing=0.1, balance=0.5, auxiliary_weight=0.5, mixup=1.0, drop_picture=0.3
    )
    first, lines = finished(tmp_path / "first", small_model, config, splits)
    lied = []

    def lie(each: Record, num_labels: int) -> npt.NDArray[np.float32]:
        target = target_of(each, num_labels)
        target[list(each.unknown)] = 1.0
        lied.append(len(each.unknown))
        return target

    monkeypatch.setattr(dataset, "target_of", lie)
    second, _ = finished(tmp_path / "second", small_model, config, splits)
    assert sum(lied) > 100
    for name in (LAST_NAME, BEST_NAME):
        weights = [load_checkpoint(tmp_path / run / name).model for run in ("first", "second")]
        assert weights[0].keys() == weights[1].keys()
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert (first.thresholds, first.metrics) == (second.thresholds, second.metrics)
    courses = [[{**row, "seconds": 0} for row in state.history] for state in (first, second)]
    assert courses[0] == courses[1]
    counts = {name: sum(len(each.unknown) for each in split.records) for name, split in splits.named().items()}
    assert f"train: {counts['train']} of {3 * len(splits.train.records)} labels of rows are unknown" in "\n".join(lines)
    assert first.metrics["val"]["unknown"] == counts["val"]
    assert first.metrics["test"]["unknown"] == counts["test"]


def test_a_model_learns_what_is_known(
    tmp_path: Path, colours: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    whole = load_splits(DataOptions(colours))
    mixed = dataclasses.replace(whole, train=splits.train)  # measured where all is known
    state, _ = finished(tmp_path / "run", small_model, dataclasses.replace(small_train, epochs=12), mixed)
    assert state.metrics["test"]["samples_f1"] > 0.9
    assert "unknown" not in state.metrics["test"]


def forgotten(splits: Splits, name: str, label: int) -> Splits:
    """The splits with one label unknown in every row of one of them."""
    split = splits.named()[name]
    records = tuple(
        dataclasses.replace(
            each,
            labels=tuple(index for index in each.labels or () if index != label),
            unknown=tuple(sorted({*each.unknown, label})),
        )
        for each in split.records
    )
    return dataclasses.replace(splits, **{name: dataclasses.replace(split, records=records)})  # type: ignore[arg-type] # a split


def test_a_label_of_which_no_training_row_says_anything_is_refused(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    with pytest.raises(DataError, match=r"no training row says whether it has 'green': 1 of 3 labels are unknown"):
        train_run(tmp_path / "run", small_model, small_train, forgotten(splits, "train", 1))
    assert not (tmp_path / "run").exists()


def test_a_label_that_no_validation_row_knows_is_said(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    config = dataclasses.replace(small_train, epochs=1)
    state, lines = finished(tmp_path / "run", small_model, config, forgotten(splits, "val", 1))
    (line,) = (line for line in lines if line.startswith("val: "))
    assert line.endswith("1 labels are unknown in every row, and get the thresholds of all together: 'green'")
    assert len(state.thresholds) == 3


def test_an_unknown_label_takes_the_teachers_value(splits: Splits, trained: TrainedModel, tmp_path: Path) -> None:
    expected = soft_labels(splits.train.records, load_teachers((trained.folder,), splits.labels.names))
    for weight in (0.25, 0.0):
        taught, _ = teach(splits, Distillation((trained.folder,)), weight, "cpu", lambda _: None)
        assert len(taught.train.records) == len(splits.train.records)
        for each, own, row in zip(taught.train.records, splits.train.records, expected, strict=True):
            if not weight and not own.unknown:
                assert each == own
                continue
            known = (1 - weight) * np.array([index in (own.labels or ()) for index in range(3)]) + weight * row
            unknown = np.isin(range(3), own.unknown)
            np.testing.assert_allclose(np.array(each.soft), np.where(unknown, row, known), atol=1e-6)
            assert dataset.known_of(each, 3) is None
        write_soft_labels(tmp_path, taught)
        assert read_soft_labels(tmp_path, splits, fingerprint({"train": taught.train})) == taught
    # A label that nobody but the teacher knows is learned from it.
    nobody = forgotten(splits, "train", 1)
    taught, _ = teach(nobody, Distillation((trained.folder,)), 0.0, "cpu", lambda _: None)
    assert all(dataset.unknown_of(each) == () for each in taught.train.records)


def test_the_fingerprint_covers_unknown_labels_and_is_the_old_one_without(colours: Path, splits: Splits) -> None:
    whole = load_splits(DataOptions(colours))
    digest = hashlib.sha256()
    for name, split in sorted(whole.named().items()):
        lines: list[object] = [[name, split.labels.names]]
        for each in split.records:
            labels = [split.labels.names[index] for index in each.labels or ()]
            size = None if each.image is None else len(each.image.read_bytes())
            lines.append([each.image_id, each.captions, labels, size])
        for line in lines:
            digest.update(json.dumps(line, separators=(",", ":")).encode() + b"\n")
    assert fingerprint(whole.named()) == digest.hexdigest()
    one = whole.train.records[0]
    other = next(index for index in range(3) if index not in (one.labels or ()))
    records = (dataclasses.replace(one, unknown=(other,)), *whole.train.records[1:])
    changed = dataclasses.replace(whole, train=dataclasses.replace(whole.train, records=records))
    assert fingerprint(changed.named()) != fingerprint(whole.named())


def test_a_summary_counts_unknown_labels(splits: Splits) -> None:
    rows = (record((0,), (1, 2)), record((), (1,)), record(()), dataclasses.replace(record(()), labels=None))
    summary = summarise(dataclasses.replace(splits.train, records=rows))
    assert summary.unknown_counts == {"red": 0, "green": 2, "blue": 1}
    assert summary.label_counts == {"red": 1, "green": 0, "blue": 0}
    assert (summary.labelled, summary.without_label) == (3, 1)


def test_outputs_carry_what_is_known_in_every_mode(splits: Splits, trained: TrainedModel) -> None:
    records = splits.val.records
    known = np.array([[label not in each.unknown for label in range(3)] for each in records])
    captioned = np.array([bool(each.captions) for each in records])
    outputs = collect(trained, trained.run, records)
    np.testing.assert_array_equal(outputs["both"].known, known)
    np.testing.assert_array_equal(outputs["caption-only"].known, known[captioned])
    whole = [dataclasses.replace(each, unknown=()) for each in records]
    assert collect(trained, trained.run, whole)["both"].known is None
    some = [*whole[:16], dataclasses.replace(whole[0], unknown=(1,))] * 2  # batches with and without
    joined = collect(trained, trained.run, some)["both"].known
    assert joined is not None
    assert (~joined).sum() == 2
