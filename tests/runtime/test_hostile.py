"""Every input of the corpus (tests/hostile) ends in a typed error or in an answer, in bounds of time and memory."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from mlic_runtime import MlicError, Predictor
from tests.hostile import Caption, Picture, captions, pictures

ROOT = Path(__file__).parents[2]
PICTURES, CAPTIONS = pictures(), captions()


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.load(ROOT / "tests" / "data" / "tiny", cache=False, threads=1)


def outcome(predictor: Predictor, image: Path, caption: object) -> str:
    """ "answer" or "error"; both are looked at."""
    try:
        prediction = predictor.predict(image, caption)  # type: ignore[arg-type] # of any type: the point of the tests
    except MlicError as error:
        message = str(error)
        assert message
        assert len(message) < 1000
        assert message.isprintable(), "one line"
        return "error"
    assert set(prediction.probabilities) == set(predictor.labels)
    assert all(math.isfinite(value) and 0 <= value <= 1 for value in prediction.probabilities.values())
    return "answer"


def test_the_corpus_is_large_and_every_input_has_a_name_of_its_own() -> None:
    names = [*(case.name for case in PICTURES), *(case.name for case in CAPTIONS)]
    assert len(set(names)) == len(names) > 500


def test_the_corpus_is_the_same_every_time() -> None:
    assert pictures() == PICTURES


# Pillow warns of broken metadata; under -W error it would refuse the picture for it.
@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("case", PICTURES, ids=lambda case: case.name)
def test_a_picture_is_answered_or_refused(predictor: Predictor, case: Picture, tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"  # whatever it is: names say nothing
    path.write_bytes(case.data)
    assert case.expected in (outcome(predictor, path, None), "either")


@pytest.mark.parametrize("case", CAPTIONS, ids=lambda case: case.name)
def test_a_caption_is_answered_or_refused(predictor: Predictor, case: Caption) -> None:
    picture = ROOT / "examples" / "coffee.jpg"
    assert case.expected in (outcome(predictor, picture, case.value), "either")


def test_the_whole_corpus_takes_less_than_a_gigabyte_and_five_seconds_each(tiny: Path) -> None:
    code = f"import sys; sys.path.append({str(ROOT)!r}); from tests.hostile.bounded import main; main({str(tiny)!r})"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=600, check=False)
    lines = child.stdout.decode().splitlines()
    assert child.returncode == 0, f"{lines[-1:]}: {child.stderr.decode(errors='replace')[-2000:]}"
    records = [json.loads(line) for line in lines]
    assert len(records) > len(PICTURES) + len(CAPTIONS)
    wrong = [r for r in records if r["expected"] not in ("answer" if r["found"] == "answer" else "error", "either")]
    assert wrong == []
