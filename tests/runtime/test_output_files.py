from pathlib import Path

import pytest

from mlic_runtime.base import output_files as files
from mlic_runtime.base.output_files import atomic_folder, atomic_path, exchange, write_bytes
from mlic_runtime.errors import OutputError


def write(folder: Path, content: str) -> None:
    with atomic_folder(folder) as new:
        (new / "file").write_text(content)


def read(folder: Path) -> str:
    (file,) = folder.iterdir()
    return file.read_text()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["in one step", "in two"])
def _exchange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system can let two folders trade places, and where it cannot."""
    if request.param == "in two":
        monkeypatch.setattr(files, "exchange", lambda first, second: False)


@pytest.mark.usefixtures("_exchange")
def test_a_folder_takes_the_place_of_nothing_and_of_another(tmp_path: Path) -> None:
    for content in ("first", "second", "third"):
        write(tmp_path / "folder", content)
        assert read(tmp_path / "folder") == content
        assert names(tmp_path) == ["folder"]
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o755


@pytest.mark.usefixtures("_exchange")
def test_a_folder_that_fails_leaves_the_older_one_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "folder", "older")

    def write_half() -> None:
        with atomic_folder(tmp_path / "folder") as new:
            (new / "file").write_text("half of")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert read(tmp_path / "folder") == "older"
    assert names(tmp_path) == ["folder"]


def test_two_folders_trade_places(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, name)
    if exchange(tmp_path / "one", tmp_path / "two"):
        assert [read(tmp_path / name) for name in ("one", "two")] == ["two", "one"]
    else:  # not on this system: then nothing has changed
        assert [read(tmp_path / name) for name in ("one", "two")] == ["one", "two"]
    assert not exchange(tmp_path / "one", tmp_path / "missing")


def test_killed_between_two_renames_the_older_folder_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the two cannot trade places in one step."""
    monkeypatch.setattr(files, "exchange", lambda first, second: False)
    write(tmp_path / "folder", "older")
    (tmp_path / "folder").rename(tmp_path / ".folder.old")  # as far as it got
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "folder"):
        raise RuntimeError
    assert read(tmp_path / "folder") == "older"
    write(tmp_path / "folder", "newer")
    assert read(tmp_path / "folder") == "newer"
    assert names(tmp_path) == ["folder"]


def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path: Path) -> None:
    for name in ("file", "folder"):
        (tmp_path / f".{name}.0123abc_.tmp" / name).mkdir(parents=True)
    write_bytes(tmp_path / "file", b"new")
    write(tmp_path / "folder", "new")
    assert names(tmp_path) == ["file", "folder"]


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError) as caught:
        write_bytes(tmp_path / "folder", b"new")
    message = (
        f"cannot write {tmp_path / 'folder'}: Is a directory; what was there is unchanged: mend that and try again"
    )
    assert str(caught.value) == message
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*deeper: "), atomic_path(tmp_path / "file" / "deeper"):
        pass
    assert names(tmp_path) == ["file", "folder"]
