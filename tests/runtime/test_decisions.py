import numpy as np
import pytest

from mlic_runtime.errors import InputError
from mlic_runtime.predict.prediction import PredictionOptions, decide, sigmoid


def test_sigmoid_matches_its_definition() -> None:
    logits = np.linspace(-30, 30, 241)
    np.testing.assert_allclose(sigmoid(logits), 1 / (1 + np.exp(-logits)), rtol=1e-5)


def test_sigmoid_does_not_overflow() -> None:
    logits = np.array([[-1e30, -200.0, 0.0, 200.0, 1e30]], dtype=np.float32)
    found = sigmoid(logits)
    assert found.dtype == np.float32
    assert found.tolist() == [[0, 0, 0.5, 1, 1]]


def test_sigmoid_keeps_small_probabilities() -> None:
    assert sigmoid(np.float32(-50)) == pytest.approx(np.exp(-50), rel=1e-5)


def test_a_label_is_predicted_from_its_threshold_on() -> None:
    probabilities = np.array([[0.5, 0.25, 1.0], [0.49, 0.75, 0.0]], dtype=np.float32)
    assert decide(probabilities, (0.5, 0.5, 0.0)).tolist() == [[True, False, True], [False, True, True]]


def test_thresholds_are_not_rounded_to_float32() -> None:
    below = np.array([[np.float32(0.7)]])  # 0.69999998807907
    assert decide(below, [0.7]).tolist() == [[False]]
    assert decide(below, [float(below[0, 0])]).tolist() == [[True]]


def test_the_options_of_a_prediction_are_checked_when_they_are_made() -> None:
    assert PredictionOptions() == PredictionOptions(threshold=None, top_k=None, at_least_one=False)
    for threshold in (-0.1, 1.5, float("nan"), "0.5"):
        with pytest.raises(InputError, match=r"threshold must be in \[0, 1\], found "):
            PredictionOptions(threshold=threshold)  # type: ignore[arg-type] # one of them
    for top_k in (0, 1.5):
        with pytest.raises(InputError, match="top_k must be 1 or more, found "):
            PredictionOptions(top_k=top_k)  # type: ignore[arg-type] # one of them
