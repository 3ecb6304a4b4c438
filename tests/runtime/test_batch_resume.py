import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import mlic_runtime
from mlic_runtime.base.machine import processor_name
from mlic_runtime.batch.resumable_file import ResumableFile
from mlic_runtime.cli.infer import infer
from mlic_runtime.graph.saved_precision import PrecisionChoice, graphs_digest, save_precision
from mlic_runtime.package.model_package import load_package

FORMATS = ("jsonl", "csv", "submission")


@pytest.fixture(autouse=True)
def _use_tiny(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLIC_MODEL", str(tiny))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """23 rows, every fifth of them bad."""
    folder = tmp_path / "in"
    folder.mkdir()
    lines = ["ImageID,Caption"]
    for index, picture in enumerate(np.random.default_rng(3).integers(0, 256, (23, 6, 8, 3), dtype=np.uint8)):
        if index % 5 != 4:
            Image.fromarray(picture).save(folder / f"{index}.png")
        lines.append(f'{index}.png,"{("red", "bright, blue", "no", "")[index % 4]}"')
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    return folder / "rows.csv"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "results"


def arguments_of(rows: Path, output: Path, *more: str) -> list[str]:
    return ["--input", str(rows), "--output", str(output), "--batch-size", "4", "--threads", "1", *more]


def run(rows: Path, output: Path, *more: str) -> Result:
    return CliRunner().invoke(infer, arguments_of(rows, output, *more))


def uninterrupted(rows: Path, output: Path, *more: str) -> bytes:
    """The results of a run that nobody interrupts, elsewhere."""
    whole = output.with_name("whole")
    result = run(rows, whole, *more)
    assert "4 of 23 rows failed, the first of this run: row 5: " in result.stderr
    return whole.read_bytes()


def interrupted(rows: Path, output: Path, *more: str) -> "tuple[bytes, bytes]":
    """What a run leaves that ends before it can give its file its name: (FILE.partial, its journal)."""

    def give_up(self: Path, target: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", give_up)
        result = run(rows, output, *more)
    assert result.exit_code == 1
    assert "No space left on device; solve that, then go on with --resume" in result.stderr
    return files_of(output)


def files_of(output: Path) -> "tuple[bytes, bytes]":
    partial, journal = (output.with_name(output.name + ending) for ending in (".partial", ".partial.journal"))
    return partial.read_bytes(), journal.read_bytes()


def leave(output: Path, partial: "bytes | None", journal: "bytes | None") -> None:
    for ending, content in ((".partial", partial), (".partial.journal", journal)):
        path = output.with_name(output.name + ending)
        if content is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(content)
    output.unlink(missing_ok=True)


def left(output: Path) -> list[str]:
    return sorted(path.name for path in output.parent.iterdir() if path.name.startswith(output.name))


# --- the same file


@pytest.mark.parametrize("format_", FORMATS)
def test_a_resumed_run_gives_the_same_bytes_wherever_it_was_cut(rows: Path, output: Path, format_: str) -> None:
    expected = uninterrupted(rows, output, "--format", format_)
    partial, journal = interrupted(rows, output, "--format", format_)
    assert partial == expected
    cuts = np.random.default_rng(5).integers(0, len(partial), 12).tolist()
    for cut in [0, 1, len(partial) - 1, len(partial), *cuts]:
        leave(output, partial[:cut], journal)
        result = run(rows, output, "--format", format_, "--resume")
        assert result.exit_code == 1
        assert "Error: 4 of 23 rows failed" in result.stderr
        assert output.read_bytes() == expected, cut
        assert left(output) == ["results"]


def test_the_journal_may_be_cut_anywhere(rows: Path, output: Path) -> None:
    expected = uninterrupted(rows, output)
    partial, journal = interrupted(rows, output)
    first = journal.index(b"\n") + 1
    for cut in [first, first + 1, len(journal) - 1, *range(first + 7, len(journal), 29)]:
        leave(output, partial, journal[:cut])
        assert run(rows, output, "--resume").exit_code == 1
        assert output.read_bytes() == expected, cut


def test_what_a_power_failure_garbles_is_made_again(rows: Path, output: Path) -> None:
    expected = uninterrupted(rows, output)
    partial, journal = interrupted(rows, output)
    for start in (0, 100, len(partial) // 2, len(partial) - 10):
        leave(output, partial[:start] + bytes(len(partial) - start), journal)
        run(rows, output, "--resume")
        assert output.read_bytes() == expected
    leave(output, partial, journal[:-40] + bytes(40))
    run(rows, output, "--resume")
    assert output.read_bytes() == expected


def test_results_that_are_there_are_not_made_again(rows: Path, output: Path) -> None:
    partial, journal = interrupted(rows, output)
    leave(output, partial[:-1], journal)
    for picture in rows.parent.glob("1?.png"):
        picture.unlink()
    run(rows, output, "--resume")
    assert output.read_bytes() == partial, "only the last batch, rows 20 to 22, is predicted again"


def test_resuming_can_be_interrupted_in_turn(rows: Path, output: Path) -> None:
    expected = uninterrupted(rows, output)
    partial, journal = interrupted(rows, output)
    leave(output, partial[: len(partial) // 3], journal)
    again, journal = interrupted(rows, output, "--resume")
    leave(output, again[: 2 * len(partial) // 3], journal)
    run(rows, output, "--resume")
    assert output.read_bytes() == expected


def test_other_numbers_of_workers_may_finish_it(rows: Path, output: Path) -> None:
    expected = uninterrupted(rows, output, "--workers", "1")
    partial, journal = interrupted(rows, output, "--workers", "1")
    leave(output, partial[:900], journal)
    run(rows, output, "--resume", "--workers", "4", "--on-error", "record")
    assert output.read_bytes() == expected


def test_rows_from_standard_input_can_be_resumed_too(rows: Path, output: Path) -> None:
    lines = b"".join(b'{"caption": "%s"}\n' % caption for caption in [b"red", b"no", b"blue bright"] * 5)
    arguments = ["--input", "-", "--output", str(output), "--batch-size", "2"]
    assert CliRunner().invoke(infer, arguments, input=lines).exit_code == 0
    expected = output.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", lambda self, target: (_ for _ in ()).throw(OSError(5, "broken")))
        CliRunner().invoke(infer, arguments, input=lines)
    partial, journal = files_of(output)
    leave(output, partial[:500], journal)
    assert CliRunner().invoke(infer, [*arguments, "--resume"], input=lines).exit_code == 0
    assert output.read_bytes() == expected


# --- beginnings and ends


def test_resume_begins_where_nothing_is_there(rows: Path, output: Path) -> None:
    expected = uninterrupted(rows, output)
    assert run(rows, output, "--resume").exit_code == 1
    assert output.read_bytes() == expected


@pytest.mark.parametrize(("partial", "journal"), [(b"", None), (b"", b""), (b"", b'{"half'), (None, b"")])
def test_killed_before_the_first_result_it_begins(
    rows: Path, output: Path, partial: "bytes | None", journal: "bytes | None"
) -> None:
    expected = uninterrupted(rows, output)
    leave(output, partial, journal)
    output.write_bytes(b"older\n")
    run(rows, output, "--resume")
    assert output.read_bytes() == expected


def test_killed_after_the_file_had_its_name_it_only_cleans_up(rows: Path, output: Path) -> None:
    expected = uninterrupted(rows, output)
    _, journal = interrupted(rows, output)
    leave(output, None, journal)
    output.write_bytes(expected)
    result = run(rows, output, "--resume")
    assert (result.exit_code, result.stderr) == (1, "Error: 4 of 23 rows failed\n")
    assert left(output) == ["results"]
    assert output.read_bytes() == expected


def test_a_run_that_fails_before_its_first_result_leaves_nothing(rows: Path, output: Path) -> None:
    assert run(rows, output, "--batch-size", "8", "--on-error", "stop").exit_code == 1
    assert left(output) == []


# --- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch-size", "5"], "it was begun with batch_size 4, and this run has 5; repeat the first command line"),
        (["--format", "csv"], 'with format "jsonl", and this run has "csv"'),
        (["--threshold", "0.5"], "with threshold null, and this run has 0.5"),
        (["--top-k", "1"], "with top_k null, and this run has 1"),
        (["--at-least-one"], "with at_least_one false, and this run has true"),
        (["--no-pictures"], "with image_root "),
        (["--no-captions"], "with captions true, and this run has false"),
        (["--precision", "fp16"], 'with precision "fp32", and this run has "fp16"'),
        (["--threads", "2"], "with threads 1, and this run has 2"),
        (["--max-pixels", "1000"], "with max_pixels 90000000, and this run has 1000"),
        (["--image-root", "."], "with image_root "),
    ],
)
def test_other_options_are_refused(rows: Path, output: Path, options: list[str], message: str) -> None:
    partial, journal = interrupted(rows, output)
    result = run(rows, output, "--resume", *options)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: cannot resume ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert files_of(output) == (partial, journal)


def test_another_model_is_refused(
    rows: Path, output: Path, tiny_copy: Path, edit_manifest: Callable[..., None]
) -> None:
    interrupted(rows, output)
    edit_manifest(tiny_copy, lambda data: data["labels"][0].update(threshold=0.51))
    result = run(rows, output, "--resume", "--model", str(tiny_copy))
    assert "it was begun with manifest_sha256 " in result.stderr


def test_a_choice_that_was_made_meanwhile_does_not_mix_precisions(rows: Path, output: Path, tiny: Path) -> None:
    expected = uninterrupted(rows, output)
    partial, journal = interrupted(rows, output)
    manifest = load_package(tiny).manifest
    save_precision(PrecisionChoice("tiny", graphs_digest(manifest), "cpu", processor_name(), "fp16", {"fp16": 1.0}))
    result = run(rows, output, "--resume")
    assert result.exit_code == 1
    assert 'it was begun with precision "fp32", and this run has "fp16"; repeat the first command' in result.stderr
    assert files_of(output) == (partial, journal)
    run(rows, output, "--resume", "--precision", "fp32")
    assert output.read_bytes() == expected


@pytest.mark.parametrize("change", [lambda text: text.replace("\n0.png,", "\nx.png,"), lambda text: text[:100]])
def test_other_rows_are_refused(rows: Path, output: Path, change: Callable[[str], str]) -> None:
    partial, journal = interrupted(rows, output)
    rows.write_text(change(rows.read_text()))
    result = run(rows, output, "--resume")
    assert result.stderr.startswith("Error: cannot resume: the ")
    assert files_of(output) == (partial, journal)


def test_rows_behind_the_results_may_have_changed(rows: Path, output: Path) -> None:
    partial, journal = interrupted(rows, output)
    leave(output, partial[: len(partial) // 2], journal)
    with rows.open("a") as stream:
        stream.write("0.png,red\n")
    run(rows, output, "--resume")
    assert output.read_bytes().count(b"\n") == 24


def test_results_are_not_overwritten_by_accident(rows: Path, output: Path) -> None:
    partial, journal = interrupted(rows, output)
    result = run(rows, output)
    assert result.exit_code == 1
    assert "is left from an interrupted run: go on with it (--resume), or delete it" in result.stderr
    assert files_of(output) == (partial, journal)


def test_results_without_their_journal_cannot_be_resumed(rows: Path, output: Path) -> None:
    partial, _ = interrupted(rows, output)
    leave(output, partial, None)
    assert "cannot be resumed without " in run(rows, output, "--resume").stderr


def test_there_must_be_something_to_resume(rows: Path, output: Path) -> None:
    output.write_bytes(b"whose is this?\n")
    assert "Error: there is nothing to resume: " in run(rows, output, "--resume").stderr
    assert output.read_bytes() == b"whose is this?\n"


def test_a_journal_does_not_vouch_for_another_file(rows: Path, output: Path) -> None:
    _, journal = interrupted(rows, output)
    leave(output, None, journal)
    output.write_bytes(b"older\n")
    assert ".partial' is missing: delete " in run(rows, output, "--resume").stderr
    assert output.read_bytes() == b"older\n"


def test_two_runs_do_not_share_a_file(rows: Path, output: Path) -> None:
    identity = {"model": "m"}
    first = ResumableFile(output, identity)
    first.append(b"{}\n", 1, 0, 0)
    with pytest.raises(mlic_runtime.OutputError, match="another process is at work on "):
        ResumableFile(output, identity, resume=True)
    first.append(b"{}\n", 1, 0, 0)
    first.close()
    second = ResumableFile(output, identity, resume=True)
    assert second.position.rows == 2
    second.close()


def test_a_full_disk_leaves_the_older_file_and_can_be_resumed(
    rows: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = uninterrupted(rows, output)
    output.write_bytes(b"older\n")
    room = 2500
    real = os.write

    def write(descriptor: int, data: Any) -> int:
        nonlocal room
        if room <= 0:
            raise OSError(28, "No space left on device")
        done = real(descriptor, bytes(data)[: min(len(data), room)])
        room -= done
        return done

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        result = run(rows, output)
    assert result.exit_code == 1
    assert "No space left on device; solve that, then go on with --resume" in result.stderr
    assert output.read_bytes() == b"older\n"
    run(rows, output, "--resume")
    assert output.read_bytes() == expected


def test_a_folder_that_is_not_there_is_named(rows: Path, output: Path) -> None:
    result = run(rows, output / "deeper" / "x.jsonl")
    assert result.exit_code == 1
    assert "x.jsonl.partial': there is no such file or folder" in result.stderr


# --- a real death

KILL = """
import os, signal, sys
from pathlib import Path
from mlic_runtime.batch import resumable_file
from mlic_runtime.cli.infer import infer

moment, count = sys.argv.pop(1), int(sys.argv.pop(1))
write, replace, unlink = os.write, Path.replace, Path.unlink

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def write_and_die(descriptor, data):
    global count
    count -= 1
    if count == 0:
        write(descriptor, bytes(data)[: len(data) // 2])
        die()
    return write(descriptor, data)

if moment == "write":
    resumable_file.os.write = write_and_die
elif moment == "replace":
    Path.replace = lambda self, target: die()
else:
    Path.unlink = lambda self: die()
infer(prog_name="mlic-infer")
"""


@pytest.mark.parametrize(
    ("moment", "count"),
    # The first write is the journal's first line; after it results and journal take turns.
    [("write", 1), ("write", 2), ("write", 3), ("write", 8), ("write", 13), ("replace", 0), ("unlink", 0)],
)
def test_a_killed_process_is_finished_by_resume(rows: Path, output: Path, moment: str, count: int) -> None:
    expected = uninterrupted(rows, output)
    here = str(Path(mlic_runtime.__file__).parents[1])
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    killed = subprocess.run(
        [sys.executable, "-c", KILL, moment, str(count), *arguments_of(rows, output)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert output.exists() == (moment == "unlink")
    assert run(rows, output, "--resume").exit_code == 1
    assert output.read_bytes() == expected
    assert left(output) == ["results"]
