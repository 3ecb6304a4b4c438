import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import mlic_runtime
from mlic_runtime.cli.infer import infer
from mlic_runtime.limits import MAX_ROW_BYTES

pytestmark = pytest.mark.usefixtures("use_tiny")


@pytest.fixture
def use_tiny(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLIC_MODEL", str(tiny))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A PNG of the size of the tiny model, all red."""
    path = tmp_path / "red.picture.png"
    Image.fromarray(np.full((6, 8, 3), (255, 0, 0), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def sidecar(picture: Path) -> Path:
    return picture.with_name("red.picture.txt")


def run(*arguments: "str | Path", stdin: "bytes | None" = None) -> Result:
    return CliRunner().invoke(infer, [os.fspath(argument) for argument in arguments], input=stdin)


def found(result: Result) -> dict[str, Any]:
    assert (result.exit_code, result.stderr) == (0, "")
    data: dict[str, Any] = json.loads(result.stdout)
    return data


def refusal(result: Result) -> str:
    """The one line of an error; exit code 1."""
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    return result.stderr


def test_a_caption_comes_from_standard_input(picture: Path) -> None:
    expected = found(run(picture, "blue Straße", "--format", "json"))
    for content in ("blue Straße", "\ufeffblue\r\n\tStraße\n"):
        assert found(run(picture, "-", "--format", "json", stdin=content.encode())) == expected
    assert expected["caption"] == "blue Straße"


def test_a_caption_comes_from_the_file_beside_the_picture(picture: Path, sidecar: Path) -> None:
    sidecar.write_text("\ufeffno  red\n", encoding="utf-8")
    assert found(run(picture, "--sidecar", "--format", "json")) == found(run(picture, "no red", "--format", "json"))
    assert found(run(picture, "--format", "json"))["caption"] is None, "only on request"


def test_a_single_picture_and_a_folder_read_the_same_caption(picture: Path, sidecar: Path) -> None:
    sidecar.write_text("bright\nblue")
    alone = found(run(picture, "--sidecar", "--format", "json"))
    row = found(run("--input", picture.parent))
    assert row == {**alone, "image": picture.name}


def test_a_blank_caption_is_none(picture: Path, sidecar: Path) -> None:
    sidecar.write_text(" \n")
    for result in (
        run(picture, "--sidecar", "--format", "json"),
        run(picture, "-", "--format", "json", stdin=b" \n"),
        run(picture, "-", "--format", "json", stdin=b""),
    ):
        assert found(result)["caption"] is None


def test_a_sidecar_that_is_missing_was_asked_for(picture: Path) -> None:
    assert f"there is no .txt file beside the picture '{picture}'" in refusal(run(picture, "--sidecar"))
    assert "there is no .txt file beside" in refusal(run("", "--sidecar"))


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"caf\xe9", "found the byte 0xE9, which is not UTF-8"),
        ("caption".encode("utf-16"), "which is not UTF-8"),
        (b"x" * (MAX_ROW_BYTES + 1), f"has more than {MAX_ROW_BYTES} bytes"),
    ],
)
def test_a_caption_that_cannot_be_used_is_named(picture: Path, sidecar: Path, content: bytes, error: str) -> None:
    assert refusal(run(picture, "-", stdin=content)).startswith("Error: the caption on standard input")
    assert error in refusal(run(picture, "-", stdin=content))
    sidecar.write_bytes(content)
    assert refusal(run(picture, "--sidecar")).startswith(f"Error: the caption '{sidecar}'")
    assert error in refusal(run(picture, "--sidecar"))


def test_the_largest_caption_is_read(picture: Path) -> None:
    content = b"blue".ljust(MAX_ROW_BYTES)
    assert found(run(picture, "-", "--format", "json", stdin=content))["caption"] == "blue"


def test_a_sidecar_that_is_no_file_is_named(picture: Path, sidecar: Path) -> None:
    sidecar.mkdir()
    assert f"cannot read the caption '{sidecar}': it is a directory" in refusal(run(picture, "--sidecar"))
    sidecar.rmdir()
    os.mkfifo(sidecar)
    assert f"cannot read the caption '{sidecar}': it is not a regular file" in refusal(run(picture, "--sidecar"))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["-", "-"], "IMAGE and CAPTION cannot both be '-'"),
        (["-", "--sidecar"], "'--sidecar' needs IMAGE to be a file"),
        (["a.jpg", "caption", "--sidecar"], "CAPTION and '--sidecar' exclude each other"),
        (["a.jpg", "-", "--sidecar"], "CAPTION and '--sidecar' exclude each other"),
        (["--input", "-", "--sidecar"], "'--sidecar' needs IMAGE"),
        (["--list-models", "--sidecar"], "exclude each other"),
    ],
)
def test_what_excludes_each_other_is_wrong_usage(arguments: list[str], error: str) -> None:
    result = run(*arguments, stdin=b"")
    assert (result.exit_code, result.stdout) == (2, "")
    assert error in result.stderr


# --- real processes: what a shell makes standard input


def process(arguments: str, picture: Path) -> "subprocess.CompletedProcess[bytes]":
    """`mlic-infer` with PICTURE, run by a shell in the folder of the picture."""
    here = str(Path(mlic_runtime.__file__).parents[1])
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    code = "from mlic_runtime.cli.infer import infer; infer(prog_name='mlic-infer')"
    command = f'exec "$PYTHON" -c "$CODE" {arguments}'
    environment = {**os.environ, "PYTHONPATH": path, "PYTHON": sys.executable, "CODE": code, "PICTURE": str(picture)}
    return subprocess.run(["sh", "-c", command], cwd=picture.parent, env=environment, capture_output=True, check=False)


def test_the_shell_redirects_a_picture(picture: Path) -> None:
    ended = process('- "blue" --format json < "$PICTURE"', picture)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert json.loads(ended.stdout)["labels"] == ["red", "blue"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ('"$PICTURE" - 0> written', b"Error: cannot read a caption from standard input: Bad file descriptor\n"),
        ("- 0> written", b"Error: cannot read a picture from standard input: Bad file descriptor\n"),
        ('"$PICTURE" - <&-', b"Error: cannot read a caption from standard input: it is closed\n"),
        ("- <&-", b"Error: cannot read a picture from standard input: it is closed\n"),
    ],
)
def test_a_standard_input_that_cannot_be_read_is_one_line(picture: Path, arguments: str, error: bytes) -> None:
    ended = process(arguments, picture)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, b"", error)


def test_every_format_comes_through_standard_input(picture: Path) -> None:
    for format_ in ("JPEG", "WEBP", "TIFF"):
        stream = io.BytesIO()
        with Image.open(picture) as image:
            image.save(stream, format_)
        assert found(run("-", "--format", "json", stdin=stream.getvalue()))["labels"] == ["red"]
