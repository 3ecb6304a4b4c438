"""Folders that pictures come into."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

import mlic_runtime
from mlic_runtime.batch.appended_file import AppendedFile
from mlic_runtime.batch.formats import BatchFormat, Csv, JsonLines
from mlic_runtime.batch.watching import predict_arrivals
from mlic_runtime.cli.infer import infer
from mlic_runtime.errors import InputError, OutputError
from mlic_runtime.predict.prediction import PredictionOptions
from mlic_runtime.predict.predictor import Predictor
from mlic_runtime.rows.row import RowError
from mlic_runtime.rows.watched_folder import WatchedFolder

SECONDS = 120  # turns a hang into a failure


def png(colour: str = "red") -> bytes:
    stream = BytesIO()
    Image.new("RGB", (9, 7), colour).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def predictor(tiny: Path) -> Predictor:
    return Predictor.load(tiny, threads=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "in"
    path.mkdir()
    return path


def looks(watched: WatchedFolder, count: int = 2) -> list[list[str | None]]:
    return [[row.name for row in watched.look()] for _ in range(count)]


def test_a_picture_is_given_once_when_two_looks_agree(folder: Path) -> None:
    (folder / "b.png").write_bytes(png())
    (folder / "a.png").write_bytes(png())
    watched = WatchedFolder(folder)
    assert looks(watched, 4) == [[], ["a.png", "b.png"], [], []]


def test_a_picture_that_grows_waits_until_it_does_not(folder: Path) -> None:
    watched, data = WatchedFolder(folder), png()
    for end in (0, 1, 20, len(data)):
        (folder / "a.png").write_bytes(data[:end])
        assert watched.look() == []
        assert watched.waiting == 1
    [row] = watched.look()
    assert (row.name, row.image) == ("a.png", folder / "a.png")
    assert watched.waiting == 0


def test_a_change_of_the_same_size_is_seen_by_its_time(folder: Path) -> None:
    path, watched = folder / "a.png", WatchedFolder(folder)
    for time in (1, 2, 3):
        path.write_bytes(png())
        os.utime(path, ns=(time, time))
        assert watched.look() == []
    assert [row.name for row in watched.look()] == ["a.png"]


def test_an_empty_picture_is_never_complete(folder: Path) -> None:
    (folder / "a.png").touch()
    watched = WatchedFolder(folder)
    assert looks(watched, 3) == [[], [], []]
    assert watched.waiting == 1


def test_a_renamed_picture_is_given_under_its_last_name(folder: Path) -> None:
    watched = WatchedFolder(folder)
    (folder / ".a.png.part").write_bytes(png())
    assert looks(watched) == [[], []]
    (folder / ".a.png.part").rename(folder / "a.png")
    assert looks(watched) == [[], ["a.png"]]


def test_a_picture_that_is_replaced_between_two_looks_waits(folder: Path) -> None:
    watched = WatchedFolder(folder)
    (folder / "a.png").write_bytes(png())
    os.utime(folder / "a.png", ns=(1, 1))
    assert watched.look() == []
    (folder / "other").write_bytes(png())
    os.utime(folder / "other", ns=(1, 1))
    (folder / "other").replace(folder / "a.png")
    assert looks(watched) == [[], ["a.png"]]


def test_the_caption_beside_it_has_to_be_complete_too(folder: Path) -> None:
    watched = WatchedFolder(folder)
    (folder / "a.png").write_bytes(png())
    assert watched.look() == []
    (folder / "a.txt").write_text("no")
    assert watched.look() == []
    (folder / "a.txt").write_text("no blue")
    assert watched.look() == []
    [row] = watched.look()
    assert row.caption == "no blue"


def test_captions_can_be_left_out(folder: Path) -> None:
    (folder / "a.png").write_bytes(png())
    (folder / "a.txt").write_bytes(b"\xff")
    watched = WatchedFolder(folder, captions=False)
    assert watched.look() == []
    [row] = watched.look()
    assert (row.caption, row.error) == (None, None)


def test_subfolders_come_and_go(folder: Path) -> None:
    watched = WatchedFolder(folder)
    (folder / "day").mkdir()
    (folder / "day" / "a.png").write_bytes(png())
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "a.png").write_bytes(png())
    assert looks(watched) == [[], [str(Path("day", "a.png"))]]
    (folder / "day" / "a.png").unlink()
    (folder / "day").rmdir()
    assert looks(watched) == [[], []]


def test_what_is_no_picture_is_counted(folder: Path) -> None:
    (folder / "notes.doc").write_text("x")
    watched = WatchedFolder(folder)
    assert looks(watched) == [[], []]
    assert "passed over 1 file" in watched.passed_over.note()


def test_a_folder_that_is_gone_is_an_error(folder: Path) -> None:
    watched = WatchedFolder(folder)
    folder.rmdir()
    with pytest.raises(InputError, match="is not a folder; expected one to watch"):
        watched.look()


class Script:
    """Stands in for the clock: at each pause the next step happens, and after the last one it stops."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self.steps = list(steps)
        self.stop = False

    def pause(self) -> None:
        if self.steps:
            self.steps.pop(0)()
        else:
            self.stop = True

    def stopped(self) -> bool:
        return self.stop


def watch(folder: Path, predictor: Predictor, script: Script, append: Callable[[str], object], **more: Any) -> Any:
    format_: BatchFormat = more.pop("format_", JsonLines())
    return predict_arrivals(
        WatchedFolder(folder, more.pop("done", ())),
        predictor,
        format_,
        PredictionOptions(),
        append,
        pause=script.pause,
        stopped=script.stopped,
        batch_size=more.pop("batch_size", 32),
        **more,
    )


def test_arrivals_are_predicted_as_predict_does(folder: Path, predictor: Predictor) -> None:
    (folder / "first.png").write_bytes(png("blue"))
    bad: list[RowError] = []
    script = Script(
        lambda: (folder / "half.png").write_bytes(png()[:30]),
        lambda: (folder / "second.png").write_bytes(png("green")),
        lambda: (folder / "second.txt").write_text("no red"),
        lambda: None,
    )
    records: list[str] = []
    assert watch(folder, predictor, script, records.append, report=bad.append) == (3, 1)
    results = {result["image"]: result for result in map(json.loads, "".join(records).splitlines())}
    assert list(results) == ["first.png", "half.png", "second.png"]
    expected = predictor.predict(folder / "second.png", "no red").to_dict()
    assert results["second.png"] == {**expected, "image": "second.png"}
    assert results["half.png"]["error"]["type"] == "ImageError"
    assert [error.image for error in bad] == ["half.png"]


def test_a_stop_ends_after_what_is_written(folder: Path, predictor: Predictor) -> None:
    for index in range(20):
        (folder / f"{index:02}.png").write_bytes(png())
    script, records = Script(lambda: None), [""]

    def append(text: str) -> None:
        records.append(text)
        script.stop = True

    rows, _ = watch(folder, predictor, script, append, batch_size=2, workers=1)
    done = [json.loads(line)["image"] for line in "".join(records).splitlines()]
    assert len(done) == rows < 20
    assert done == [f"{index:02}.png" for index in range(rows)]
    # The next run goes on with the others.
    again: list[str] = []
    left, _ = watch(folder, predictor, Script(lambda: None), again.append, done=done)
    assert left == 20 - rows


@pytest.mark.parametrize("make", [JsonLines, lambda: Csv(("red", "green", "blue"))])
@pytest.mark.parametrize("cut", [1, 20, 10_000])
def test_the_output_says_what_is_done(
    folder: Path, predictor: Predictor, tmp_path: Path, make: Callable[[], BatchFormat], cut: int
) -> None:
    names = ["a.png", 'quote"and,comma.png', "line\nend.png", "ünï.png", "bad.png"]
    for name in names:
        (folder / name).write_bytes(b"no picture" if name == "bad.png" else png())
    path, format_ = tmp_path / "out", make()
    output = AppendedFile(str(path), format_)
    watch(folder, predictor, Script(lambda: None), output.append, format_=format_)
    output.close()
    whole = path.read_bytes()
    again = AppendedFile(str(path), format_)
    again.close()
    assert (again.done, again.cut) == (set(names), 0)
    assert again.models == {predictor.manifest.title: 4}
    # Killed as it wrote the last record.
    path.write_bytes(whole[: max(0, len(whole) - cut)])
    rest = AppendedFile(str(path), format_)
    assert rest.done < set(names)
    watch(folder, predictor, Script(lambda: None), rest.append, format_=format_, done=rest.done)
    rest.close()
    assert sorted(path.read_bytes()) == sorted(whole)
    assert rest.cut == (0 if cut > len(whole) else len(whole) - cut - whole.rfind(b"\n", 0, len(whole) - cut) - 1)


@pytest.mark.parametrize(
    ("content", "format_", "message"),
    [
        (b"nonsense\n", JsonLines(), "record 1 of .* is no result of this format"),
        (b"{}\n", JsonLines(), "record 1 of"),
        (b"[]\n", JsonLines(), "record 1 of"),
        (b'{"image": "a"}\n{"image": 1}\n', JsonLines(), "record 2 of"),
        (b"\xff\n", JsonLines(), "record 1 of"),
        (b"image,caption\na,b\n", Csv(("red",)), "begins with other columns"),
        (b"image,caption,model,labels,p_red,error\na,b\n", Csv(("red",)), "record 2 of"),
        (b'image,caption,model,labels,p_red,error\na"b"c,,,,,\n"x"y,,,,,\n', Csv(("red",)), "record 3 of"),
    ],
)
def test_another_file_is_not_appended_to(tmp_path: Path, content: bytes, format_: BatchFormat, message: str) -> None:
    path = tmp_path / "out"
    path.write_bytes(content)
    with pytest.raises(OutputError, match=message):
        AppendedFile(str(path), format_)
    assert path.read_bytes() == content


def test_two_do_not_append_to_the_same_file(tmp_path: Path) -> None:
    first = AppendedFile(str(tmp_path / "out"), JsonLines())
    with pytest.raises(OutputError, match="another process is at work"):
        AppendedFile(str(tmp_path / "out"), JsonLines())
    first.close()
    AppendedFile(str(tmp_path / "out"), JsonLines()).close()


def test_an_output_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    for output in (tmp_path, tmp_path / "none" / "out"):
        with pytest.raises(OutputError, match=r"out|regular"):
            AppendedFile(str(output), JsonLines())


def test_a_full_disk_is_an_error_and_what_was_cut_off_is_done_again(
    tmp_path: Path, room: Callable[[int], AbstractContextManager[None]]
) -> None:
    record = '{"image": "a.png"}\n'
    output = AppendedFile(str(tmp_path / "out"), JsonLines())
    with room(len(record) + 5), pytest.raises(OutputError, match=r"cannot write .*; solve that, then start again"):
        output.append(record * 2)
    output.close()
    again = AppendedFile(str(tmp_path / "out"), JsonLines())
    again.close()
    assert (again.done, again.cut) == ({"a.png"}, 5)
    assert (tmp_path / "out").read_text() == record


@contextlib.contextmanager
def process(model: Path, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    path = os.pathsep.join(filter(None, [str(Path(mlic_runtime.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "mlic_runtime.cli", "--watch", str(folder), "--model", str(model)]
    running = subprocess.Popen(
        [*command, "--watch-interval", "0.02", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    with running:
        try:
            yield running
        finally:
            running.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_predicts_what_comes_and_ends_at_a_signal(
    tiny: Path, folder: Path, predictor: Predictor, number: signal.Signals
) -> None:
    (folder / "a.png").write_bytes(png())
    with process(tiny, folder) as running:
        assert running.stdout is not None
        assert json.loads(running.stdout.readline())["image"] == "a.png"
        (folder / ".b").write_bytes(png("blue"))
        (folder / ".b").rename(folder / "b.png")
        result = json.loads(running.stdout.readline())
        assert result == {**predictor.predict(folder / "b.png").to_dict(), "image": "b.png"}
        running.send_signal(number)
        out, err = running.communicate(timeout=SECONDS)
        assert (running.returncode, out) == (0, "")
        assert err == f"Watching {folder}; Ctrl-C ends it.\n2 results, 0 of them errors.\n"


def test_a_process_goes_on_where_the_one_before_was_killed(tiny: Path, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(png())
    arguments = ("--output", str(output), "--format", "csv")
    with process(tiny, folder, *arguments) as running:
        assert any(output.exists() and output.read_bytes().count(b"\n") == 3 for _ in range(10_000_000))
        running.kill()
        running.communicate(timeout=SECONDS)
    output.write_bytes(output.read_bytes()[:-4])
    (folder / "c.png").write_bytes(png())
    with process(tiny, folder, *arguments) as running:
        assert any(output.read_bytes().count(b"\n") == 4 for _ in range(10_000_000))
        running.terminate()
        _, err = running.communicate(timeout=SECONDS)
    assert "Note: cut off a last result that was not complete" in err
    assert "Note: results are there already: 1" in err
    assert err.endswith("2 results, 0 of them errors.\n")
    with output.open(newline="") as stream:
        assert [row["image"] for row in csv.DictReader(stream)] == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--watch", "FOLDER", "a.png"], "'--watch' and 'IMAGE' exclude each other"),
        (["--watch", "FOLDER", "--input", "FOLDER"], "'--watch' and '--input' exclude each other"),
        (["--watch", "FOLDER", "--resume"], "'--watch' and '--resume' exclude each other"),
        (["--watch", "FOLDER", "--no-pictures"], "exclude each other"),
        (["--watch", "FOLDER", "--uncertain", "3"], "exclude each other"),
        (["--watch", "FOLDER", "--sidecar"], "exclude each other"),
        (["--watch", "FOLDER", "--explain", "a.html"], "exclude each other"),
        (["--watch", "FOLDER", "--engine", "ray"], "'--watch' needs '--engine local'"),
        (["--watch", "FOLDER", "--actors", "2"], "'--actors' needs '--engine ray'"),
        (["--watch", "FOLDER", "--format", "table"], "'--watch' needs '--format' jsonl or csv; found table"),
        (["--watch", "FOLDER", "--output", "FOLDER"], "'--output' needs a file"),
        (["--watch", "nowhere"], "does not exist"),
        (["--watch-interval", "2", "a.png"], "'--watch-interval' needs '--watch'"),
    ],
)
def test_options_that_do_not_go_together(folder: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(infer, [str(folder) if text == "FOLDER" else text for text in arguments])
    assert result.exit_code == 2
    assert message in result.stderr
