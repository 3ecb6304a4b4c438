"""Whatever is given to the Python API: a prediction that keeps its promises, or an error of ours."""

from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mlic_runtime.errors import InputError
from mlic_runtime.predict.prediction import Prediction
from mlic_runtime.predict.predictor import Predictor
from mlic_runtime.rows.reader import Row, RowError

DATA = Path(__file__).parents[1] / "data"
LABELS = {"red", "green", "blue"}
LIMITS = settings(
    derandomize=True, deadline=None, max_examples=150, database=None, suppress_health_check=[HealthCheck.too_slow]
)


@cache
def predictor(name: str = "tiny") -> Predictor:
    return Predictor.load(DATA / name, threads=1, cache=False)


# --- what may be given


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    """Of pictures, and of what is nearly one: another type, another number of axes or channels, empty."""
    usual = st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(3))
    shape = draw(st.one_of(usual, usual, st.lists(st.integers(0, 5), max_size=4).map(tuple)))
    dtype = draw(st.sampled_from(["uint8", "uint8", "uint8", "int64", "float32", "bool", "U1", "O"]))
    if dtype != "uint8":
        return np.zeros(shape, dtype=dtype)
    return np.random.default_rng(draw(st.integers(0, 9))).integers(0, 256, shape, dtype=np.uint8)


@st.composite
def pil_images(draw: st.DrawFn) -> Image.Image:
    mode = draw(st.sampled_from(["RGB", "RGBA", "L", "LA", "P", "1", "I;16", "I", "F", "CMYK", "YCbCr", "HSV", "LAB"]))
    return Image.new(mode, (draw(st.integers(0, 9)), draw(st.integers(0, 9))))


@st.composite
def picture_bytes(draw: st.DrawFn) -> bytes:
    """A picture file, perhaps cut off, perhaps with a few bytes changed."""
    stream = BytesIO()
    Image.new("RGB", (9, 7), "red").save(stream, draw(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])))
    data = bytearray(stream.getvalue())
    for position in draw(st.lists(st.integers(0, len(data) - 1), max_size=3)):
        data[position] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))])


OTHER = st.one_of(st.integers(), st.floats(), st.booleans(), st.lists(st.integers(), max_size=2), st.just(object()))
TEXTS = st.text(st.characters(), max_size=60)  # lone surrogates too
CAPTIONS = st.one_of(st.none(), TEXTS, st.sampled_from(["red", "no blue", "bright green", " "]))
PATHS = st.one_of(TEXTS, TEXTS.map(Path), st.just(DATA / "tiny" / "README.md"), st.just(DATA))
PICTURES = st.one_of(
    st.none(),
    arrays(),
    pil_images(),
    picture_bytes(),
    st.binary(max_size=40),
    st.binary(max_size=40).map(BytesIO),
    PATHS,
)
THRESHOLDS = st.one_of(st.none(), st.floats(0, 1), st.floats(), st.integers(-1, 2), st.just("0.5"))
COUNTS = st.one_of(st.none(), st.integers(-1, 5), st.just(10**30), st.floats(), st.just("1"), st.just(np.int64(2)))


def assert_sound(prediction: Prediction, top_k: Any = None) -> None:
    assert set(prediction.labels) <= LABELS
    assert len(prediction.labels) == len(set(prediction.labels))
    assert len(prediction.probabilities) == min(3, top_k or 3)
    assert prediction.probabilities.keys() <= LABELS
    values = list(prediction.probabilities.values())
    assert values == sorted(values, reverse=True)
    assert all(0 <= value <= 1 for value in values)


def assert_one_line(error: InputError, naming: str = "") -> None:
    assert "\n" not in str(error)
    assert naming in str(error)


@LIMITS
@given(PICTURES | OTHER, CAPTIONS | OTHER | st.binary(max_size=5), THRESHOLDS, COUNTS, st.booleans())
def test_a_prediction_is_sound_or_an_error_of_ours(
    image: Any, caption: Any, threshold: Any, top_k: Any, at_least_one: bool
) -> None:
    try:
        found = predictor().predict(image, caption, threshold=threshold, top_k=top_k, at_least_one=at_least_one)
    except InputError as error:
        assert_one_line(error)
    else:
        assert_sound(found, top_k)
        assert found.caption == caption
        assert found.labels or not at_least_one


@LIMITS
@given(PICTURES | OTHER)
def test_a_model_of_pictures_alone_gives_the_same(image: Any) -> None:
    try:
        found = predictor("tiny_picture").predict(image)
    except InputError as error:
        assert_one_line(error)
    else:
        assert_sound(found)


@LIMITS
@given(st.sampled_from(["threshold", "top_k", "batch_size", "workers"]), THRESHOLDS | COUNTS | OTHER)
def test_an_option_is_used_or_refused(name: str, value: Any) -> None:
    rows = [Row(np.zeros((6, 8, 3), dtype=np.uint8), "red")]
    if name == "workers" and value == 10**30:
        value = 4  # as many threads as that are another matter
    options: dict[str, Any] = {"workers": 1, name: value}
    try:
        found = list(predictor().predict_rows(rows, **options))
    except InputError as error:
        assert_one_line(error, naming=name)
    else:
        assert isinstance(found[0], Prediction)


@LIMITS
@given(st.lists(st.tuples(PICTURES, CAPTIONS), max_size=6), st.integers(1, 7), st.integers(1, 3))
def test_one_by_one_many_at_once_and_row_by_row_are_the_same(
    pairs: "list[tuple[Any, Any]]", batch_size: int, workers: int
) -> None:
    one_by_one: list[Prediction | InputError] = []
    for image, caption in pairs:
        try:
            one_by_one.append(predictor().predict(image, caption))
        except InputError as error:
            one_by_one.append(error)
        if isinstance(image, BytesIO):
            image.seek(0)
    rows = [Row(image, caption) for image, caption in pairs]
    by_rows = list(predictor().predict_rows(rows, batch_size=batch_size, workers=workers))
    assert len(by_rows) == len(pairs)
    for expected, found in zip(one_by_one, by_rows, strict=True):
        if isinstance(expected, InputError):
            assert isinstance(found, RowError)
            assert (type(found.error), str(found.error)) == (type(expected), str(expected))
        else:
            assert isinstance(found, Prediction)
            assert_same(found, expected)
    good = [pair for pair, result in zip(pairs, one_by_one, strict=True) if isinstance(result, Prediction)]
    for image, _ in good:
        if isinstance(image, BytesIO):
            image.seek(0)
    images, captions = [image for image, _ in good], [caption for _, caption in good]
    many = predictor().predict_many(images, captions, batch_size=batch_size)
    for expected, result in zip([each for each in one_by_one if isinstance(each, Prediction)], many, strict=True):
        assert_same(result, expected)


def assert_same(found: Prediction, expected: Prediction) -> None:
    """But for the last bits of the probabilities, which may depend on who shares a run."""
    assert (found.labels, found.caption, found.image) == (expected.labels, expected.caption, expected.image)
    assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-6)
