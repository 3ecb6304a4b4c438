import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlic_runtime.errors import CaptionError, ImageError, InputError, PackageError
from mlic_runtime.predict.prediction import Prediction, PredictionOptions
from mlic_runtime.predict.predictor import Predictor
from mlic_runtime.predict.stream import BATCHES_AHEAD, RUNS_AT_ONCE
from mlic_runtime.rows.reader import Row, RowError


@pytest.fixture
def predictor(tiny: Path) -> Predictor:
    return Predictor.load(tiny, threads=1)


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """23 pictures of the size of the tiny model."""
    pixels = np.random.default_rng(3).integers(0, 256, (23, 6, 8, 3), dtype=np.uint8)
    paths = [tmp_path / f"{index}.png" for index in range(len(pixels))]
    for path, picture in zip(paths, pixels, strict=True):
        Image.fromarray(picture).save(path)
    return [str(path) for path in paths]


@pytest.fixture
def rows(pictures: list[str]) -> list[Row]:
    captions = ["red", None, "no green", "bright blue red"]
    mixed = [Row(picture, captions[index % 4]) for index, picture in enumerate(pictures)]
    return [*mixed, Row(caption="blue"), Row(caption="no")]


@pytest.mark.parametrize("batch_size", [1, 2, 7, 25, 100])
def test_results_come_in_the_order_of_the_rows_and_are_those_of_predict(
    predictor: Predictor, rows: list[Row], batch_size: int
) -> None:
    found = list(predictor.predict_rows(rows, batch_size=batch_size, workers=3))
    expected = [predictor.predict(row.image, row.caption) for row in rows]
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, Prediction)
        assert (one.image, one.caption, one.labels, one.model) == (
            other.image,
            other.caption,
            other.labels,
            other.model,
        )
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)


def test_the_options_of_a_prediction_are_one_value_or_three(predictor: Predictor, rows: list[Row]) -> None:
    options = PredictionOptions(threshold=0.9, top_k=1, at_least_one=True)
    one = list(predictor.stream_rows(rows, options, batch_size=4))
    assert one == list(predictor.predict_rows(rows, batch_size=4, threshold=0.9, top_k=1, at_least_one=True))
    assert one != list(predictor.stream_rows(rows, PredictionOptions(), batch_size=4))


def test_the_number_of_workers_changes_nothing(predictor: Predictor, rows: list[Row]) -> None:
    rows[3] = Row("missing.jpg")
    one, four = ([r.to_dict() for r in predictor.predict_rows(rows, batch_size=4, workers=n)] for n in (1, 4))
    assert one == four


def test_a_row_that_fails_has_an_error_in_its_place(predictor: Predictor, pictures: list[str], tmp_path: Path) -> None:
    corrupt = tmp_path / "corrupt.jpg"
    corrupt.write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    rows = [
        Row(pictures[0], "red"),
        Row(str(tmp_path / "missing.jpg"), "red"),
        Row(str(corrupt)),
        Row(),
        Row(pictures[1], 7),  # type: ignore[arg-type] # the point of the test
        Row(name="x.jpg", error=InputError("unreadable row")),
        Row(pictures[2]),
    ]
    found = list(predictor.predict_rows(rows, batch_size=3))
    errors = [result.to_dict()["error"]["type"] if isinstance(result, RowError) else None for result in found]
    assert errors == [None, "ImageError", "ImageError", "InputError", "CaptionError", "InputError", None]
    assert found[1].to_dict() == {
        "image": str(tmp_path / "missing.jpg"),
        "error": {
            "type": "ImageError",
            "message": f"cannot read picture '{tmp_path}/missing.jpg': there is no such file or folder",
        },
    }
    assert found[5].to_dict() == {"image": "x.jpg", "error": {"type": "InputError", "message": "unreadable row"}}
    assert found[6] == predictor.predict(pictures[2])


def test_it_can_stop_at_the_first_error_instead(predictor: Predictor, pictures: list[str]) -> None:
    results = predictor.predict_rows(
        [Row(pictures[0]), Row(pictures[1]), Row("missing.jpg"), Row(caption=7)],  # type: ignore[arg-type] # on purpose
        batch_size=2,
        on_error="stop",
    )
    assert [next(results).image, next(results).image] == pictures[:2]
    with pytest.raises(ImageError, match=r"'missing\.jpg': there is no such file or folder"):
        next(results)


def test_a_fault_of_the_model_is_not_blamed_on_a_row(
    predictor: Predictor, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*feed: Any) -> Any:
        raise PackageError("the graph failed")

    monkeypatch.setattr(predictor.session, "run", fail)
    with pytest.raises(PackageError, match="the graph failed"):
        list(predictor.predict_rows(rows))


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_no_more_than_a_few_batches_are_read_ahead(predictor: Predictor, batch_size: int) -> None:
    read = 0

    def endless() -> Iterator[Row]:
        nonlocal read
        while True:
            read += 1
            yield Row(caption="red")

    results = predictor.predict_rows(endless(), batch_size=batch_size, workers=2)
    assert read == 0, "nothing is read before it is asked for"
    for given in range(200):
        next(results)
        assert read <= given + (BATCHES_AHEAD + 1) * batch_size
    results.close()


def test_pictures_are_decoded_while_the_graph_runs(
    predictor: Predictor, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph's first run waits until the pictures of a later batch have been read."""
    decoded = threading.Semaphore(0)
    prepare, run = predictor._prepare, predictor.session.run

    def count(*arguments: Any) -> None:
        prepare(*arguments)
        decoded.release()

    def wait(*feed: Any) -> Any:
        for _ in range(3 if len(runs) == 0 else 0):
            assert decoded.acquire(timeout=60)
        runs.append(len(feed[0]))
        return run(*feed)

    runs: list[int] = []
    monkeypatch.setattr(predictor, "_prepare", count)
    monkeypatch.setattr(predictor.session, "run", wait)
    assert len(list(predictor.predict_rows([Row(path) for path in pictures[:6]], batch_size=2, workers=1))) == 6
    assert runs == [2, 2, 2]


@pytest.mark.parametrize("workers", [2, 5])
def test_two_batches_run_at_once(
    predictor: Predictor, rows: list[Row], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph's first two runs wait for each other, and there is never a third beside them."""
    meeting, running, most = threading.Barrier(RUNS_AT_ONCE), 0, 0
    lock, run = threading.Lock(), predictor.session.run

    def meet(*feed: Any) -> Any:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if not met.is_set():
            meeting.wait(timeout=60)
            met.set()
        try:
            return run(*feed)
        finally:
            with lock:
                running -= 1

    met = threading.Event()
    monkeypatch.setattr(predictor.session, "run", meet)
    found = [result.to_dict() for result in predictor.predict_rows(rows, batch_size=2, workers=workers)]
    assert most == RUNS_AT_ONCE
    monkeypatch.undo()
    assert found == [result.to_dict() for result in predictor.predict_rows(rows, batch_size=2, workers=1)]


def test_with_one_worker_one_batch_runs_at_a_time(
    predictor: Predictor, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    names: set[str] = set()
    run = predictor.session.run

    def note(*feed: Any) -> Any:
        names.add(threading.current_thread().name)
        return run(*feed)

    monkeypatch.setattr(predictor.session, "run", note)
    assert len(list(predictor.predict_rows(rows, batch_size=2, workers=1))) == len(rows)
    assert names == {"mlic-run_0"}


def test_leaving_early_ends_the_threads(predictor: Predictor, rows: list[Row]) -> None:
    results = predictor.predict_rows(rows, batch_size=2, workers=3)
    next(results)
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mlic-")]


def test_a_graph_that_fails_in_one_of_two_runs_ends_the_stream_and_the_threads(
    predictor: Predictor, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, runs = predictor.session.run, itertools.count()

    def fail_later(*feed: Any) -> Any:
        if next(runs) == 2:
            raise PackageError("the graph failed")
        return run(*feed)

    monkeypatch.setattr(predictor.session, "run", fail_later)
    results = predictor.predict_rows(rows, batch_size=2, workers=2)
    with pytest.raises(PackageError, match="the graph failed"):
        list(results)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mlic-")]


def test_the_name_of_a_row_is_what_its_result_says(predictor: Predictor, pictures: list[str]) -> None:
    content = Path(pictures[0]).read_bytes()
    named, bytes_, caption = predictor.predict_rows(
        [Row(pictures[0], name="0"), Row(content), Row(caption="red", name="7.jpg")]
    )
    assert [named.image, bytes_.image, caption.image] == ["0", None, "7.jpg"]


def test_the_most_probable_label_can_be_asked_for(predictor: Predictor) -> None:
    rows = [Row(caption="no"), Row(caption="no no green no"), Row(caption="red")]
    assert [r.labels for r in predictor.predict_rows(rows) if isinstance(r, Prediction)][:2] == [(), ()]
    found = list(predictor.predict_rows(rows, at_least_one=True))
    assert [r.labels for r in found if isinstance(r, Prediction)] == [("red",), ("green",), ("red",)]
    assert predictor.predict(caption="no", at_least_one=True).labels == ("red",)
    assert predictor.predict_many([None], ["no"], at_least_one=True)[0].labels == ("red",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers must be 1 or more, found 0"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"top_k": 0}, "top_k must be 1 or more"),
        ({"threshold": 2.0}, "threshold must be in"),
        ({"on_error": "ignore"}, "on_error must be 'record' or 'stop', found 'ignore'"),
    ],
)
def test_options_out_of_range_are_refused_at_once(predictor: Predictor, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        predictor.predict_rows([], **options)


def test_a_model_without_captions_says_so_row_by_row(tiny_picture: Path, pictures: list[str]) -> None:
    good, captioned, empty = Predictor.load(tiny_picture).predict_rows(
        [Row(pictures[0]), Row(pictures[0], "red"), Row(caption="red")]
    )
    assert isinstance(good, Prediction)
    assert isinstance(captioned, RowError)
    assert isinstance(captioned.error, CaptionError)
    assert isinstance(empty, RowError)
