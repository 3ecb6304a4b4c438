import numpy as np
import pytest

from mlic_train.evaluate import compute_metrics
from mlic_train.thresholds import fit_thresholds, samples_f1

TARGETS = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 0]], dtype=bool)
PROBABILITIES = np.array([[0.9, 0.2, 0.3], [0.4, 0.8, 0.1], [0.7, 0.6, 0.6], [0.6, 0.1, 0.7]], dtype=np.float32)
HALF = np.full(3, 0.5)


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


def test_our_samples_f1_is_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random((50, 5), dtype=np.float32)
    targets = rng.random((50, 5)) < 0.4
    targets[:, 0] |= ~targets.any(axis=1)
    expected = compute_metrics(probabilities, targets, np.full(5, 0.5))["samples_f1"]
    assert samples_f1(probabilities >= 0.5, targets) == pytest.approx(expected, abs=1e-5)


def test_thresholds_find_a_shifted_optimum() -> None:
    rng = np.random.default_rng(0)
    targets = rng.random((2000, 4)) < 0.5
    probabilities = np.where(targets, 0.35, 0.15) + rng.normal(0, 0.02, targets.shape)
    thresholds = fit_thresholds(probabilities, targets)
    assert ((thresholds > 0.2) & (thresholds < 0.3)).all()
    assert samples_f1(probabilities >= thresholds, targets) > 0.99


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
