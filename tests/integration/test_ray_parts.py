"""What runs in the workers of `--engine ray`, and the folder that they write, without Ray: tests/scale has the rest."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from mlic_runtime import (
    ImageError,
    InputError,
    MlicError,
    OutputError,
    PackageError,
    PredictionOptions,
    Predictor,
    RayPredictor,
    Row,
    open_rows,
)
from mlic_runtime.batch.local import identify_job
from mlic_runtime.ray.engine import check_input
from mlic_runtime.ray.folder import PartSummary, ResultFolder
from mlic_runtime.ray.parts import Job, Part, PartWriter, part_to_table, read_parts, read_reports, split_into_parts

TINY = Path(__file__).parents[1] / "data" / "tiny"
ROWS = 11


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Eleven rows, of which two fail: one names no picture that is there, one leads out of the folder."""
    lines = ["ImageID,Caption"]
    for index in range(ROWS):
        Image.fromarray(np.full((6, 8, 3), index * 20, dtype=np.uint8)).save(tmp_path / f"{index}.png")
        lines.append(f"{index}.png,{('red', '', 'bright blue')[index % 3]}")
    lines[3], lines[10] = "none.png,red", "../9.png,red"
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "rows.csv"


@pytest.fixture
def job(source: Path, tmp_path: Path) -> Job:
    options = PredictionOptions(top_k=2)
    predictor = Predictor.load(TINY, threads=1, max_pixels=10**6)
    identity = identify_job(predictor, options, {"image_root": str(source.parent), "pictures": True})
    return Job(
        source=str(source),
        image_root=None,
        pictures=True,
        captions=True,
        folder=tmp_path / "out",
        identity=identity,
        model=str(TINY),
        loading={"threads": 1, "max_pixels": 10**6},
        options=options,
        batch_size=2,
        workers=1,
        stop=False,
        rows_per_part=4,
        done=frozenset(),
    )


def work(job: Job) -> Iterator[PartSummary]:
    """What Ray would do, in this process: the summaries of the parts that one worker writes."""
    writer = PartWriter(job)
    for table in read_parts(None, job):
        for report in read_reports(writer(table)):
            yield report.summary


def complete(job: Job, resume: bool = False) -> pa.Table:
    with closing(ResultFolder(job.folder, job.identity, resume=resume)) as folder:
        job = dataclasses.replace(job, done=frozenset(folder.done))
        check_input(job, folder)
        folder.finish({**folder.done, **{summary.index: summary for summary in work(job)}})
    return parquet.read_table(job.folder)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# --- what comes out


def test_results_are_those_of_the_predictor_row_for_row(source: Path, job: Job) -> None:
    table = complete(job)
    with open_rows(source) as rows:
        expected = [
            result.to_dict()
            for result in Predictor.load(TINY, threads=1).predict_rows(rows, batch_size=2, workers=1, top_k=2)
        ]
    found = table.to_pylist()
    assert [row["row"] for row in found] == list(range(1, ROWS + 1))
    for row, result in zip(found, expected, strict=True):
        assert row["image"] == result["image"]
        if "error" in result:
            assert [row["error_type"], row["error_message"]] == list(result["error"].values())
            assert row["labels"] is row["probabilities"] is row["model"] is row["caption"] is None
        else:
            assert {name: row[name] for name in ("caption", "labels", "model")} == {
                name: result[name] for name in ("caption", "labels", "model")
            }
            assert {k: v for k, v in row["probabilities"].items() if v is not None} == result["probabilities"]
            assert list(row["probabilities"]) == ["red", "green", "blue"]
            assert row["error_type"] is row["error_message"] is None
    assert json.loads((job.folder / "_SUCCESS").read_text()) | {"rows_checksum": 0} == {
        "rows": ROWS, "parts": 3, "errors": 2, "rows_checksum": 0
    }  # fmt: skip


def test_rows_share_a_run_of_the_graph_as_they_do_without_ray(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    run = Predictor._run_graph

    def watch(self: Predictor, pixels: Any, tokens: Any) -> Any:
        sizes.append(len(pixels))
        return run(self, pixels, tokens)

    monkeypatch.setattr(Predictor, "_run_graph", watch)
    complete(job)
    assert sizes == [2, 1, 2, 2, 1, 1]  # rows 3 and 10 fail


def test_file_names_that_are_not_utf8_find_their_picture(job: Job, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    shutil.copy(tmp_path / "1.png", folder / "caf\udce9.png")
    identity = {**job.identity, "image_root": str(folder)}
    table = complete(dataclasses.replace(job, source=str(folder), identity=identity))
    assert table["image"].to_pylist() == ["caf\\udce9.png"]
    assert table["error_type"].to_pylist() == [None]


def test_an_input_without_rows_has_one_part_without_rows(source: Path, job: Job) -> None:
    source.write_text("Caption\n")
    assert len(complete(job)) == 0
    assert "part-000000.parquet" in files_of(job.folder)


@pytest.mark.parametrize(("count", "sizes"), [(0, [0]), (1, [1]), (4, [4]), (5, [4, 1]), (8, [4, 4])])
def test_rows_are_cut_into_parts_of_one_size(count: int, sizes: list[int]) -> None:
    rows = [Row(caption=str(index)) for index in range(count)]
    parts = list(split_into_parts(rows, 4))
    assert [len(part.rows) for part in parts] == sizes
    assert [row for part in parts for row in part.rows] == rows
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert [(part.index, part.start) for part in parts] == [(index, 4 * index) for index in range(len(parts))]
    assert len({part.checksum for part in parts}) == len(parts)


@pytest.mark.parametrize("message", ["the disk is full", "no file 'caf\udce9.png'"])
def test_the_error_of_a_row_reaches_the_worker_as_it_is(
    job: Job, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    row = Row(name="caf\udce9.png", error=ImageError(message))
    rows: list[Row] = []
    stream = Predictor.stream_rows

    def note(self: Predictor, given: list[Row], *arguments: Any, **more: Any) -> object:
        rows.extend(given)
        return stream(self, given, *arguments, **more)

    monkeypatch.setattr(Predictor, "stream_rows", note)
    with closing(ResultFolder(job.folder, job.identity)):
        (report,) = read_reports(PartWriter(job)(part_to_table(Part(0, 0, [row], 0, last=True))))
    assert (rows[0].name, type(rows[0].error), str(rows[0].error)) == (row.name, ImageError, message)
    assert report.first_error == (1, message)


# --- what can go wrong


def test_a_part_is_the_same_whoever_writes_it_again(job: Job) -> None:
    complete(job)
    before = files_of(job.folder)
    assert len(list(work(job))) == 3
    assert files_of(job.folder) == before


def test_missing_and_garbled_parts_are_written_anew(job: Job) -> None:
    complete(job)
    before = files_of(job.folder)
    (job.folder / "_SUCCESS").unlink()
    (job.folder / "part-000001.parquet").unlink()
    (job.folder / "part-000002.parquet").write_bytes(before["part-000002.parquet"][:-7])
    complete(job, resume=True)
    assert files_of(job.folder) == before


def test_parts_that_are_there_are_not_written_again(job: Job) -> None:
    complete(job)
    (job.folder / "part-000001.parquet").unlink()
    kept = {path: path.stat().st_ino for path in job.folder.glob("part-*")}
    complete(job, resume=True)
    assert {path: path.stat().st_ino for path in kept} == kept
    assert len(files_of(job.folder)) == 5


def test_what_is_complete_is_left_alone(job: Job) -> None:
    complete(job)
    with closing(ResultFolder(job.folder, job.identity, resume=True)) as folder:
        assert folder.complete
        assert sorted(folder.done) == [0, 1, 2]


def test_results_are_not_complete_while_a_part_is_missing(job: Job) -> None:
    with closing(ResultFolder(job.folder, job.identity)) as folder:
        summaries = {summary.index: summary for summary in work(job)}
        for some in ({0: summaries[0], 1: summaries[1]}, {0: summaries[0], 2: summaries[2]}, {}):
            with pytest.raises(OutputError, match="are not complete, although all workers are done"):
                folder.finish(some)
        shutil.copy(job.folder / "part-000001.parquet", job.folder / "part-000003.parquet")
        with pytest.raises(OutputError, match="are not complete"):
            folder.finish({0: summaries[0], 2: summaries[2], 3: summaries[1]})
        (job.folder / "part-000001.parquet").unlink()
        with pytest.raises(OutputError, match="2 parts are there; go on with --resume"):
            folder.finish(summaries)
        assert not (job.folder / "_SUCCESS").exists()


def test_a_folder_with_anything_in_it_is_refused(job: Job) -> None:
    job.folder.mkdir()
    (job.folder / "mine.txt").touch()
    for resume in (False, True):
        with pytest.raises(OutputError, match=r"holds 'mine\.txt', which is no result; expected an empty folder"):
            ResultFolder(job.folder, job.identity, resume=resume)
    assert list(files_of(job.folder)) == ["mine.txt"]


def test_results_are_not_overwritten_by_accident(job: Job) -> None:
    complete(job)
    before = files_of(job.folder)
    with pytest.raises(OutputError, match=r"holds the results of another run: go on with it \(--resume\)"):
        ResultFolder(job.folder, job.identity)
    assert files_of(job.folder) == before


@pytest.mark.parametrize("option", ["manifest_sha256", "threads", "onnxruntime", "image_root"])
def test_results_of_something_else_are_not_mixed_in(job: Job, option: str) -> None:
    complete(job)
    with pytest.raises(OutputError, match=rf"cannot resume '.*out': it was begun with {option} "):
        ResultFolder(job.folder, {**job.identity, option: "other"}, resume=True)


def test_parts_of_another_run_are_refused(job: Job, tmp_path: Path) -> None:
    complete(job)
    other = dataclasses.replace(job, folder=tmp_path / "other", identity={**job.identity, "more": 1})
    complete(other)
    shutil.copy(other.folder / "part-000001.parquet", job.folder)
    with pytest.raises(OutputError, match=r"part-000001\.parquet' is not a part of these results: remove it"):
        ResultFolder(job.folder, job.identity, resume=True)
    shutil.copy(job.folder / "part-000000.parquet", job.folder / "part-000001.parquet")
    with pytest.raises(OutputError, match="is not a part of these results"):
        ResultFolder(job.folder, job.identity, resume=True)


@pytest.mark.parametrize(("old", "new"), [("1.png", "2.png"), ("bright blue", "blue"), ("\n10.png,\n", "\n")])
def test_other_rows_are_refused(source: Path, job: Job, old: str, new: str) -> None:
    complete(job)
    (job.folder / "_SUCCESS").unlink()
    (job.folder / "part-000000.parquet").unlink()  # a change in its rows shows in those after it
    text = source.read_text()
    assert old in text
    source.write_text(text.replace(old, new, 1))
    with pytest.raises(OutputError, match="the rows of the input are not those that have results there"):
        complete(job, resume=True)


def test_an_input_that_has_grown_behind_its_last_part_is_refused(source: Path, job: Job) -> None:
    header, *rows = source.read_text().splitlines(keepends=True)
    source.write_text(header + "".join(rows[:8]))  # two whole parts
    complete(job)
    source.write_text(header + "".join(rows[:9]))
    with pytest.raises(OutputError, match="the rows of the input are not those that have results there"):
        complete(job, resume=True)


def test_two_runs_do_not_share_a_folder(job: Job) -> None:
    with (
        closing(ResultFolder(job.folder, job.identity)),
        pytest.raises(OutputError, match="another process is at work on "),
    ):
        ResultFolder(job.folder, job.identity, resume=True)


@pytest.mark.parametrize("there", [False, True])
def test_a_run_without_a_result_leaves_nothing(job: Job, there: bool) -> None:
    if there:
        job.folder.mkdir()
    with closing(ResultFolder(job.folder, job.identity)):
        assert list(files_of(job.folder)) == ["_mlic.json"]
    assert job.folder.exists() == there
    assert not there or files_of(job.folder) == {}


def test_the_output_must_be_a_folder(job: Job, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for output, message in (("file", "is a file; expected the name of a folder"), ("no/where", "no such file")):
        with pytest.raises(OutputError, match=message):
            ResultFolder(tmp_path / output, job.identity)


def test_a_full_disk_ends_the_job_and_names_the_way_on(job: Job, room: Any) -> None:
    with closing(ResultFolder(job.folder, job.identity)):
        with room(1000), pytest.raises(OutputError) as error:
            list(work(job))
        assert list(files_of(job.folder)) == ["_mlic.json"]
    assert "File too large; solve that, then go on with --resume" in str(error.value)


def test_a_worker_with_another_model_or_folder_fails(job: Job, tmp_path: Path) -> None:
    with closing(ResultFolder(job.folder, job.identity)):
        for change, kind, message in (
            (
                {"model": str(TINY.parent / "tiny_picture")},
                PackageError,
                "has model 'tiny-picture@1.0.0', and the job ",
            ),
            (
                {"loading": {"threads": 2, "max_pixels": 10**6}},
                PackageError,
                "has threads 2, and the job was begun with 1: install the same",
            ),
            ({"model": "missing"}, MlicError, "there is no folder, .mlic file or model named 'missing'"),
            ({"folder": tmp_path / "elsewhere"}, OutputError, "cannot read "),
            ({"identity": {**job.identity, "more": 1}}, OutputError, "is not the folder of this run"),
        ):
            with pytest.raises(kind) as error:
                list(work(dataclasses.replace(job, **change)))
            assert message in str(error.value)


def test_an_input_that_breaks_off_ends_the_job(source: Path, job: Job) -> None:
    with closing(ResultFolder(job.folder, job.identity)):
        source.unlink()
        with pytest.raises(InputError, match="there is no such file"):
            list(work(job))


def test_it_can_stop_at_a_row_that_fails(source: Path, job: Job) -> None:
    source.write_text(source.read_text().replace("none.png", "3.png"))
    with closing(ResultFolder(job.folder, job.identity)), pytest.raises(InputError, match="row 10: picture '"):
        list(work(dataclasses.replace(job, stop=True)))


# --- the class


def test_the_class_adds_columns_to_a_table(source: Path) -> None:
    predictor = RayPredictor(str(TINY), image_root=str(source.parent), threads=1)
    table = pa.table({"id": [1, 2, 3], "path": ["1.png", "../1.png", None], "Caption": ["red", "red", None]})
    found = predictor(table)
    assert found.column_names == [
        *table.column_names,
        "model",
        "labels",
        "probabilities",
        "error_type",
        "error_message",
    ]
    good, outside, nothing = found.to_pylist()
    expected = Predictor.load(TINY, threads=1).predict(source.parent / "1.png", "red")
    assert (tuple(good["labels"]), good["probabilities"]) == (expected.labels, dict(expected.probabilities))
    assert "lies outside of the image root" in outside["error_message"]
    assert "neither a picture nor a caption" in nothing["error_message"]
    assert predictor(found).column_names == found.column_names  # once more replaces them


def test_the_class_takes_arrays(source: Path) -> None:
    predictor = RayPredictor(str(TINY), threads=1, top_k=1, image_column="pixels", caption_column="said")
    pixels = np.random.default_rng(1).integers(0, 256, (4, 6, 8, 3), dtype=np.uint8)
    said = np.array(["red", None, 5.0, np.nan], dtype=object)
    found = predictor({"pixels": pixels, "said": said})
    assert found["pixels"] is pixels
    assert found["probabilities"].shape == (4, 3)
    assert found["probabilities"].dtype == np.float32
    one = Predictor.load(TINY, threads=1).predict(pixels[0], "red")
    label = predictor.labels.index(next(iter(one.probabilities)))
    assert found["probabilities"][0][label] == pytest.approx(one.probabilities[predictor.labels[label]], abs=1e-6)
    assert np.isnan(found["probabilities"]).sum(axis=1).tolist() == [2, 2, 3, 2]
    assert found["error_message"].tolist() == [None, None, "a caption must be a text, found float", None]


def test_a_name_needs_a_folder_that_it_may_not_leave(source: Path) -> None:
    found = RayPredictor(str(TINY), threads=1)({"image": np.array([str(source.parent / "1.png"), None], dtype=object)})
    assert "expected its bytes, or give image_root" in found["error_message"][0]


def test_its_options_are_checked_before_the_first_batch() -> None:
    with pytest.raises(InputError, match="top_k must be 1 or more, found 0"):
        RayPredictor(str(TINY), threads=1, top_k=0)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"x": np.array([1])}, r"a batch has the columns x; expected a column for pictures"),
        ({"path": np.array(["a"]), "image": np.array(["a"])}, "a batch has path, image, which are the same"),
    ],
)
def test_a_batch_without_its_columns_is_refused(batch: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RayPredictor(str(TINY), threads=1)(batch)
    with pytest.raises(InputError, match="expected 'pixels' among them"):
        RayPredictor(str(TINY), threads=1, image_column="pixels")(batch)
