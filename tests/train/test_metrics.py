import numpy as np
import numpy.typing as npt
import pytest

from mlic_train.errors import ConfigError
from mlic_train.measure.metrics import compute_metrics
from mlic_train.measure.thresholds import _count, _rows_f1, fit_thresholds

TARGETS = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 0]], dtype=bool)
PROBABILITIES = np.array([[0.9, 0.2, 0.3], [0.4, 0.8, 0.1], [0.7, 0.6, 0.6], [0.6, 0.1, 0.7]], dtype=np.float32)
HALF = np.full(3, 0.5)


def samples_f1(decisions: npt.NDArray[np.bool_], targets: npt.NDArray[np.bool_]) -> float:
    """As thresholds are fitted for."""
    return float(_rows_f1(*_count(decisions, targets)).mean())


def micro_f1(decisions: npt.NDArray[np.bool_], targets: npt.NDArray[np.bool_]) -> float:
    """As thresholds are fitted for."""
    hits, total = _count(decisions, targets)
    return float(_rows_f1(hits.sum(), total.sum()))


def test_metrics_by_hand() -> None:
    metrics = compute_metrics(PROBABILITIES, TARGETS, HALF)
    # Rows: {0} of {0, 2}, {1} of {1}, {0, 1, 2} of {0, 1}; the fourth row has no label and gets two.
    assert metrics["rows"] == 3
    assert metrics["samples_f1"] == pytest.approx((2 / 3 + 1 + 4 / 5) / 3, abs=1e-5)
    assert metrics["micro_f1"] == pytest.approx(2 * 4 / (5 + 5), abs=1e-5)
    assert metrics["macro_f1"] == pytest.approx((1 + 1 + 0) / 3, abs=1e-5)
    assert metrics["map"] == pytest.approx((1 + 1 + 1 / 2) / 3, abs=1e-5)
    assert metrics["negatives"] == 1
    assert metrics["false_labels_per_negative"] == 2


def test_per_label_thresholds_decide() -> None:
    metrics = compute_metrics(PROBABILITIES, TARGETS, np.array([0.5, 0.5, 0.25]))
    assert metrics["samples_f1"] == pytest.approx((1 + 1 + 4 / 5) / 3, abs=1e-5)


def test_labels_that_do_not_occur_do_not_count_in_map() -> None:
    targets = TARGETS.copy()
    targets[:, 2] = False
    assert compute_metrics(PROBABILITIES, targets, HALF)["map"] == 1.0


def test_only_negatives_give_only_false_labels() -> None:
    metrics = compute_metrics(PROBABILITIES[3:], TARGETS[3:], HALF)
    assert metrics == {"rows": 0, "negatives": 1, "false_labels_per_negative": 2}


def test_calibration_error_by_hand() -> None:
    probabilities = np.array([[0.95, 0.05], [0.96, 0.05], [0.42, 0.58]], dtype=np.float32)
    targets = np.array([[1, 0], [0, 1], [1, 0]], dtype=bool)
    # Of 15 bins four hold something: 0.95 and 0.96 (mean 0.955, half true), 0.05 twice (half true), 0.42, 0.58;
    # with fewer bins the last two would share one and cancel out.
    expected = (2 * (0.955 - 0.5) + 2 * (0.5 - 0.05) + (1 - 0.42) + (0.58 - 0)) / 6
    assert compute_metrics(probabilities, targets, HALF[:2])["ece"] == pytest.approx(expected, abs=1e-5)


def test_log_loss_by_hand() -> None:
    right = np.where(TARGETS, PROBABILITIES, 1 - PROBABILITIES)[:3]  # the fourth row has no label
    assert compute_metrics(PROBABILITIES, TARGETS, HALF)["log_loss"] == pytest.approx(-np.log(right).mean(), abs=1e-5)


def test_calibration_error_leaves_negatives_out() -> None:
    expected = compute_metrics(PROBABILITIES[:3], TARGETS[:3], HALF)["ece"]
    assert compute_metrics(PROBABILITIES, TARGETS, HALF)["ece"] == expected


def test_our_f1_is_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random((50, 5), dtype=np.float32)
    targets = rng.random((50, 5)) < 0.4
    targets[:, 0] |= ~targets.any(axis=1)
    expected = compute_metrics(probabilities, targets, np.full(5, 0.5))
    assert samples_f1(probabilities >= 0.5, targets) == pytest.approx(expected["samples_f1"], abs=1e-5)
    assert micro_f1(probabilities >= 0.5, targets) == pytest.approx(expected["micro_f1"], abs=1e-5)


def test_nothing_predicted_and_nothing_true_is_right() -> None:
    nothing = np.zeros((2, 3), dtype=bool)
    assert samples_f1(nothing, nothing) == micro_f1(nothing, nothing) == 1.0


@pytest.mark.parametrize("goal", ["samples_f1", "micro_f1"])
def test_thresholds_find_a_shifted_optimum(goal: str) -> None:
    rng = np.random.default_rng(0)
    targets = rng.random((2000, 4)) < 0.5
    probabilities = np.where(targets, 0.35, 0.15) + rng.normal(0, 0.02, targets.shape)
    thresholds = fit_thresholds(probabilities, targets, goal)
    assert ((thresholds > 0.2) & (thresholds < 0.3)).all()
    assert samples_f1(probabilities >= thresholds, targets) > 0.99


def calibrated(rows: int = 20_000) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Probabilities that are true, of three labels that are not equally easy."""
    rng = np.random.default_rng(0)
    probabilities = 1 / (1 + np.exp(-rng.normal(-0.5, 1.0, (rows, 3)) * [1.0, 2.0, 4.0]))
    return probabilities, rng.random(probabilities.shape) < probabilities


def test_each_f1_goal_is_best_at_its_own_thresholds() -> None:
    probabilities, targets = calibrated(3000)
    # Rows with many labels count more in micro F1 than in samples F1: give those rows other probabilities.
    probabilities[targets.all(axis=1)] **= 0.25
    kept = targets.any(axis=1)
    for_samples, for_micro = (fit_thresholds(probabilities, targets, goal) for goal in ("samples_f1", "micro_f1"))
    decided = [probabilities[kept] >= thresholds for thresholds in (for_samples, for_micro)]
    assert samples_f1(decided[0], targets[kept]) > samples_f1(decided[1], targets[kept])
    assert micro_f1(decided[1], targets[kept]) > micro_f1(decided[0], targets[kept])


@pytest.mark.parametrize("wanted", [0.7, 0.9])
def test_thresholds_reach_a_precision_and_no_more(wanted: float) -> None:
    probabilities, targets = calibrated()
    thresholds = fit_thresholds(probabilities, targets, f"precision={wanted}")
    kept = targets.any(axis=1)
    decisions, truth = probabilities[kept] >= thresholds, targets[kept]
    precision = (decisions & truth).sum(axis=0) / decisions.sum(axis=0)
    np.testing.assert_allclose(precision, wanted, atol=0.02)


@pytest.mark.parametrize("wanted", [0.6, 0.95])
def test_thresholds_reach_a_recall_and_no_more(wanted: float) -> None:
    probabilities, targets = calibrated()
    thresholds = fit_thresholds(probabilities, targets, f"recall={wanted}")
    recall = ((probabilities >= thresholds) & targets).sum(axis=0) / targets.sum(axis=0)
    np.testing.assert_allclose(recall, wanted, atol=0.02)


def test_a_precision_out_of_reach_gives_the_strictest_threshold_that_finds_anything() -> None:
    rng = np.random.default_rng(0)
    targets = rng.random((20_000, 2)) < 0.5
    probabilities = np.where(targets, 0.8, 0.2)
    probabilities[:, 1] = np.round(0.1 + 0.5 * rng.random(20_000), 2)  # says nothing; 0.6 at most
    thresholds = fit_thresholds(probabilities, targets, "precision=0.9")
    assert thresholds[1] == pytest.approx(0.6, abs=0.01)


def test_a_recall_out_of_reach_gives_the_lowest_threshold() -> None:
    targets = np.tile(np.eye(2, dtype=bool), (10_000, 1))
    probabilities = np.where(targets, [0.8, 0.001], 0.0)
    assert fit_thresholds(probabilities, targets, "recall=0.9") == pytest.approx([0.8, 0.01], abs=0.01)


@pytest.mark.parametrize("goal", ["samples_f1", "micro_f1", "precision=0.8", "recall=0.8"])
def test_a_label_without_positives_gets_the_global_threshold(goal: str) -> None:
    probabilities, targets = calibrated(2000)
    without = np.concatenate([targets, np.zeros((2000, 2), dtype=bool)], axis=1)
    noise = np.random.default_rng(1).random((2000, 2)) * [[0.05, 0.1]]
    thresholds = fit_thresholds(np.concatenate([probabilities, noise], axis=1), without, goal)
    assert thresholds[3] == thresholds[4]
    assert thresholds[:3].min() <= thresholds[3] <= thresholds[:3].max()


def test_an_unknown_goal_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"threshold_for is 'map'; give samples_f1, micro_f1"):
        fit_thresholds(PROBABILITIES, TARGETS, "map")


def test_a_threshold_of_its_own_must_gain_more_than_chance_would() -> None:
    rng = np.random.default_rng(3)
    targets = rng.random((2000, 6)) < 0.4
    targets[:, 5] = True
    probabilities = np.where(targets, 0.8, 0.2) + rng.uniform(-0.19, 0.19, targets.shape)
    probabilities[0, 0] = 0.3 if targets[0, 0] else 0.7  # one row is no reason to move a threshold
    fitted = fit_thresholds(probabilities, targets)
    assert len(set(fitted)) == 1
    probabilities[:, 0] *= 0.3  # but a label that speaks lower in every row is
    moved = fit_thresholds(probabilities, targets)
    assert moved[0] < 0.3
    assert len(set(moved[1:])) == 1


@pytest.mark.parametrize("goal", ["samples_f1", "micro_f1"])
def test_among_far_values_that_are_equally_good_the_threshold_does_not_jump(goal: str) -> None:
    """Rows that want a threshold under 0.3 and as many that want one over 0.7: one row more must not decide."""
    low = np.tile([[0.9, 0.3, 0.1]], (50, 1)), np.tile([[True, True, False]], (50, 1))
    high = np.tile([[0.9, 0.7, 0.1]], (50, 1)), np.tile([[True, False, False]], (50, 1))
    for more in (low, high):
        probabilities = np.concatenate([low[0], high[0], more[0][:1]])
        targets = np.concatenate([low[1], high[1], more[1][:1]])
        assert 0.3 < fit_thresholds(probabilities, targets, goal)[0] < 0.7


def test_a_label_with_few_positives_stays_near_the_global_threshold() -> None:
    rng = np.random.default_rng(0)
    targets = rng.random((1000, 3)) < 0.5
    targets[:, 2] = False
    targets[:2, 2] = True
    probabilities = np.where(targets, 0.8, 0.2) + rng.normal(0, 0.05, targets.shape)
    probabilities[:, 2] = np.where(targets[:, 2], 0.15, 0.05)  # alone it would want 0.1
    thresholds = fit_thresholds(probabilities, targets)
    assert thresholds[2] > 0.4


def test_without_a_labelled_row_the_threshold_is_one_half() -> None:
    assert fit_thresholds(np.zeros((3, 2)), np.zeros((3, 2), dtype=bool)).tolist() == [0.5, 0.5]
