import numpy as np
import numpy.typing as npt
import pytest

from mlic_train.measure.bootstrap import bootstrap_intervals, weighted_metrics
from mlic_train.measure.metrics import compute_metrics

NAMES = ("samples_f1", "micro_f1", "macro_f1", "map")
THRESHOLDS = np.array([0.3, 0.5, 0.7, 0.4, 0.5])
Sample = tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]


def sample(rows: int = 60, seed: int = 0) -> Sample:
    """Scores with many ties; the last label is never there, the first in every row without another."""
    rng = np.random.default_rng(seed)
    targets = rng.random((rows, 5)) < 0.3
    targets[:, 4] = False
    targets[:, 0] |= ~targets.any(axis=1)
    probabilities = np.clip(0.3 + 0.3 * targets + rng.normal(0, 0.2, targets.shape), 0, 1)
    return np.round(probabilities, 1).astype(np.float32), targets


def test_rows_that_count_once_give_the_metrics_themselves() -> None:
    probabilities, targets = sample()
    expected = compute_metrics(probabilities, targets, THRESHOLDS)
    found = weighted_metrics(probabilities, targets, THRESHOLDS, np.ones((1, len(targets)), dtype=np.int64))
    assert {name: float(values[0]) for name, values in found.items()} == pytest.approx(
        {name: expected[name] for name in NAMES}, abs=1e-5
    )


def test_a_row_that_counts_twice_is_a_row_that_is_there_twice() -> None:
    probabilities, targets = sample(rows=12)  # few: some resamples lose a label altogether
    weights = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), size=20)
    found = weighted_metrics(probabilities, targets, THRESHOLDS, weights)
    assert any(not targets[counts > 0, :4].any(axis=0).all() for counts in weights)
    for index, counts in enumerate(weights):
        expected = compute_metrics(probabilities.repeat(counts, axis=0), targets.repeat(counts, axis=0), THRESHOLDS)
        for name in NAMES:
            assert found[name][index] == pytest.approx(expected[name], abs=1e-5), name


def test_intervals_hold_the_metric_and_narrow_with_more_rows() -> None:
    widths = []
    for rows in (60, 600):
        probabilities, targets = sample(rows)
        metrics = compute_metrics(probabilities, targets, THRESHOLDS)
        intervals = bootstrap_intervals(probabilities, targets, THRESHOLDS)
        assert intervals.keys() == {f"{name}_{end}" for name in NAMES for end in ("low", "high")}
        for name in NAMES:
            assert intervals[f"{name}_low"] < metrics[name] < intervals[f"{name}_high"]
        widths.append(intervals["samples_f1_high"] - intervals["samples_f1_low"])
    assert widths[1] < widths[0] / 2


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    probabilities, targets = sample(400)
    decisions = probabilities >= THRESHOLDS
    per_row = 2 * (decisions & targets).sum(axis=1) / (decisions.sum(axis=1) + targets.sum(axis=1))
    intervals = bootstrap_intervals(probabilities, targets, THRESHOLDS)
    width = 2 * 1.96 * per_row.std() / 400**0.5
    assert intervals["samples_f1_high"] - intervals["samples_f1_low"] == pytest.approx(width, rel=0.1)


def test_the_draws_depend_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities, targets = sample()
    first = bootstrap_intervals(probabilities, targets, THRESHOLDS, resamples=50)
    assert bootstrap_intervals(probabilities, targets, THRESHOLDS, resamples=50, seed=1) != first
    monkeypatch.setattr("mlic_train.measure.bootstrap._MAX_VALUES", 7 * len(targets))  # seven resamples at a time
    assert bootstrap_intervals(probabilities, targets, THRESHOLDS, resamples=50) == first


def test_only_labelled_rows_are_drawn() -> None:
    probabilities, targets = sample()
    noise = np.random.default_rng(1).random((30, 5), dtype=np.float32)
    more = np.concatenate([probabilities, noise]), np.concatenate([targets, np.zeros((30, 5), dtype=bool)])
    assert bootstrap_intervals(*more, THRESHOLDS, resamples=50) == bootstrap_intervals(
        probabilities, targets, THRESHOLDS, resamples=50
    )
    assert bootstrap_intervals(noise, np.zeros((30, 5), dtype=bool), THRESHOLDS) == {}
