import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlic_runtime.errors import ImageError
from mlic_runtime.predict.prediction import Prediction
from mlic_runtime.predict.predictor import Predictor

Encode = Callable[..., bytes]

CAPTIONS = ("red", None, "no blue bright", "", "green green", "bright", "unknown words here")


@pytest.fixture
def predictor(tiny: Path) -> Predictor:
    return Predictor.load(tiny, threads=2)


@pytest.fixture
def rows(encode: Encode) -> "list[tuple[bytes, str | None]]":
    """42 picture files of different formats, sizes and contents, with captions of different lengths."""
    dice = np.random.default_rng(0)
    found = []
    for index in range(42):
        size = dice.integers(6, 90, 2)
        image = Image.fromarray(dice.integers(0, 256, (*size, 3), dtype=np.uint8))
        found.append((encode(image, ("JPEG", "PNG", "WEBP")[index % 3]), CAPTIONS[index % len(CAPTIONS)]))
    return found


def alone(predictor: Predictor, rows: "list[tuple[bytes, str | None]]") -> list[Prediction]:
    """What one thread says, row after row."""
    found = [predictor.predict(*row) for row in rows]
    assert len({tuple(one.probabilities.values()) for one in found}) == len(rows), "rows that can be told apart"
    return found


def test_many_threads_give_exactly_the_answers_of_one(
    predictor: Predictor, rows: "list[tuple[bytes, str | None]]"
) -> None:
    expected = alone(predictor, rows)
    start = threading.Barrier(8)

    def work(number: int) -> list[Prediction]:
        start.wait()
        order = [(index + 5 * number) % len(rows) for index in range(len(rows))]  # never the same row together
        found = {index: predictor.predict(*rows[index]) for index in order}
        return [found[index] for index in range(len(rows))]

    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(work, range(8)):
            assert found == expected


def test_one_and_many_pictures_may_be_mixed_among_threads(
    predictor: Predictor, rows: "list[tuple[bytes, str | None]]"
) -> None:
    images, captions = zip(*rows, strict=True)
    expected = predictor.predict_many(images, captions, batch_size=5)
    with ThreadPoolExecutor(6) as pool:
        many = [pool.submit(predictor.predict_many, images, captions, batch_size=5) for _ in range(3)]
        single = list(pool.map(predictor.predict, images, captions))
        assert [future.result() for future in many] == [expected] * 3
    assert single == alone(predictor, rows)


def test_an_error_in_one_thread_stays_there(predictor: Predictor, rows: "list[tuple[bytes, str | None]]") -> None:
    expected = alone(predictor, rows)

    def work(row: "tuple[bytes, str | None]") -> Prediction:
        with pytest.raises(ImageError):
            predictor.predict(row[0][:30], row[1])
        return predictor.predict(*row)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, rows)) == expected


def test_an_event_loop_predicts_in_threads(predictor: Predictor, rows: "list[tuple[bytes, str | None]]") -> None:
    """As README.md says; the loop stays free while a prediction waits for its picture."""
    expected = alone(predictor, rows)
    arrived = threading.Event()

    class Late:
        """A file object whose bytes arrive after the loop has done something else."""

        def read(self) -> bytes:
            assert arrived.wait(60)
            return rows[0][0]

    async def serve() -> list[Prediction]:
        late = asyncio.create_task(asyncio.to_thread(predictor.predict, Late(), rows[0][1]))  # type: ignore[arg-type]
        others = await asyncio.gather(*(asyncio.to_thread(predictor.predict, *row) for row in rows[1:]))
        assert not late.done()
        arrived.set()
        return [await late, *others]

    assert asyncio.run(serve()) == expected
