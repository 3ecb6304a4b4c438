import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mlic_runtime
from mlic_runtime.cli.bench import bench
from mlic_runtime.cli.infer import infer

INFER = "from mlic_runtime.cli.infer import main; main()"
BENCH = "from mlic_runtime.cli.bench import bench; bench(prog_name='mlic-bench')"
SERVE = "from mlic_runtime.cli.serve import serve; serve(prog_name='mlic-serve')"
NO_OUTPUT = "Error: cannot write the output: standard output is closed; redirect it to a file\n"


@pytest.fixture(autouse=True)
def use_tiny(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLIC_MODEL", str(tiny))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "pictures" / "red.png"
    path.parent.mkdir()
    Image.fromarray(np.full((6, 8, 3), (255, 0, 0), dtype=np.uint8)).save(path)
    return path


def shell(redirect: str, code: str, *arguments: "str | Path", before: str = "") -> "subprocess.CompletedProcess[str]":
    """Run a Python program in a shell that closes some of its streams."""
    here = str(Path(mlic_runtime.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))}
    command = shlex.join([sys.executable, "-c", code, *map(str, arguments)])
    return subprocess.run(
        ["/bin/sh", "-c", f"{before}{command} {redirect}"], capture_output=True, text=True, env=environment, check=False
    )


@pytest.mark.parametrize("redirect", ["2>&-", "<&-", "<&- 2>&-"])
def test_results_need_neither_standard_error_nor_input(redirect: str, picture: Path) -> None:
    for arguments in ((picture, "red", "--format", "jsonl", "-v"), ("--input", picture.parent)):
        done = shell(redirect, INFER, *arguments)
        assert done.returncode == 0
        assert done.stdout.count("\n") == 1
        assert done.stdout.startswith('{"image": ')
    done = shell(redirect, BENCH, "--runs", "1", "--warmup", "1", "--json", "--image", picture)
    assert done.returncode == 0
    assert done.stdout.startswith("{")


def test_a_missing_standard_output_is_one_error(picture: Path) -> None:
    bench_options = ("--runs", "1", "--warmup", "1", "--image", picture)
    for code, arguments in ((INFER, (picture, "red")), (INFER, ("--input", picture.parent)), (BENCH, bench_options)):
        done = shell(">&-", code, *arguments)
        assert done.returncode == 1
        assert [line for line in done.stderr.splitlines(keepends=True) if not line.startswith("Note")] == [NO_OUTPUT]


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_that_nobody_sees_is_an_error(option: str) -> None:
    for code in (INFER, BENCH, SERVE, GROUP):
        if code is GROUP and option == "--version":
            continue
        done = shell(">&-", code, option)
        assert (done.returncode, done.stderr) == (1, NO_OUTPUT)


def test_results_in_a_file_need_no_standard_output(picture: Path, tmp_path: Path) -> None:
    done = shell(">&- 2>&- <&-", INFER, "--input", picture.parent, "--output", tmp_path / "results.jsonl")
    assert done.returncode == 0
    assert (tmp_path / "results.jsonl").read_text("utf-8").count("\n") == 1


def test_errors_do_not_go_to_standard_output(tmp_path: Path) -> None:
    for arguments, code in ((("missing.png", "red"), 1), (("--bad",), 2), (("--input", tmp_path), 1)):
        done = shell("2>&-", INFER, *arguments)
        assert (done.returncode, done.stdout) == (code, "")


@pytest.mark.parametrize(
    ("what", "arguments"), [("a picture", ["-"]), ("a caption", ["PICTURE", "-"]), ("rows", ["--input", "-"])]
)
def test_a_missing_standard_input_is_one_error(what: str, arguments: "list[str]", picture: Path) -> None:
    done = shell("<&-", INFER, *(str(picture) if each == "PICTURE" else each for each in arguments))
    assert done.returncode == 1
    assert done.stderr == f"Error: cannot read {what} from standard input: it is closed\n"


def test_streams_of_text_are_written_and_read(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (json.dumps({"image": str(picture), "caption": "r\u00e9d"}, ensure_ascii=False) + "\n") * 3
    cases = (
        (infer, [str(picture), "r\u00e9d", "--format", "jsonl"], "", 1),
        (infer, [str(picture), "-", "--format", "jsonl"], "r\u00e9d", 1),
        (infer, ["--input", "-", "--image-root", str(picture.parent)], rows, 3),
        (bench, ["--runs", "1", "--warmup", "1", "--json", "--image", str(picture)], "", None),
    )
    for command, arguments, given, lines in cases:
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "stdin", io.StringIO(given))
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        with pytest.raises(SystemExit) as end:
            command(arguments)
        assert end.value.code == 0, err.getvalue()
        assert lines is None or out.getvalue().count("r\u00e9d") == lines


@pytest.mark.parametrize("closed", [False, True])
def test_streams_that_were_closed_are_as_missing(closed: bool, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = io.StringIO() if closed else None
    if gone is not None:
        gone.close()
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, gone)
    for arguments in ([str(picture), "red"], ["--input", str(picture.parent)], ["-"], ["--input", "-"]):
        with pytest.raises(SystemExit) as end:
            infer(arguments)
        assert end.value.code == 1


# A command of several, and a library in C that complains while a file is open.
GROUP = """
import os
import click
from mlic_runtime.cli.command import MlicCommand, MlicGroup

@click.group(cls=MlicGroup)
def main(): pass

@main.command(cls=MlicCommand)
@click.argument("path")
def work(path):
    with open(path, "wb") as file:
        for descriptor in (1, 2):
            try:
                os.write(descriptor, b"noise\\n")
            except OSError:
                pass
        file.write(b"result")
    click.echo("done")
    click.echo("trouble", err=True)

main()
"""


@pytest.mark.parametrize("redirect", ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_nothing_but_the_result_is_written_into_files(redirect: str, tmp_path: Path) -> None:
    result = tmp_path / "result"
    done = shell(redirect, GROUP, "work", result)
    assert result.read_bytes() == b"result"
    lost = ">&-" in redirect.split()
    assert done.returncode == (1 if lost else 0)
    assert done.stdout == ("" if lost else "noise\ndone\n")
    assert done.stderr == ("" if "2>&-" in redirect else "noise\ntrouble\n" + (NO_OUTPUT if lost else ""))


def test_errors_of_a_command_of_several_do_not_go_to_standard_output() -> None:
    done = shell("2>&-", GROUP, "nothing")
    assert (done.returncode, done.stdout) == (2, "")


def test_a_full_disk_is_one_line(tmp_path: Path, picture: Path) -> None:
    """A limit of 0 blocks, by the kernel's own word: no file grows."""
    commands = ((GROUP, ("work", os.devnull)), (GROUP, ("--help",)), (INFER, (picture, "red")), (INFER, ("--help",)))
    for code, arguments in commands:
        done = shell(f"> {shlex.quote(str(tmp_path / 'full'))}", code, *arguments, before="ulimit -f 0; ")
        assert done.returncode == 1
        error = "Error: cannot write the output: File too large; make room, or choose another place\n"
        assert done.stderr.removeprefix("noise\n") == error


@pytest.mark.parametrize("arguments", [(), ("--help",), ("--version",), ("--list-models",)])
def test_a_reader_that_goes_away_leaves_no_traceback(arguments: "tuple[str, ...]", picture: Path) -> None:
    done = shell("| true", INFER, *(arguments or (picture, "red")))
    assert (done.stdout, done.stderr) == ("", "")
