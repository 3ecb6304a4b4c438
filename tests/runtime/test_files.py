import errno
import fcntl
import os
from pathlib import Path

import pytest

from mlic_runtime.base import files as whole_files
from mlic_runtime.base.files import atomic_file, replace_file, temporary_folder


def test_a_temporary_folder_is_gone_in_the_end(tmp_path: Path) -> None:
    with temporary_folder(tmp_path / "deeper" / "file") as folder:
        assert folder.parent == tmp_path / "deeper"
        (folder / "file").write_text("new")
        (folder / "file").replace(tmp_path / "deeper" / "file")
    assert [path.name for path in (tmp_path / "deeper").iterdir()] == ["file"]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    left = tmp_path / ".file.0a_bcdef.tmp"
    others = [tmp_path / name for name in (".file2.0a_bcdef.tmp", ".file.tmp", ".file.0a_bcdef.tmp.old", "file")]
    for folder in (left, *others):
        folder.mkdir()
        (folder / "half").write_text("half of it")
    with temporary_folder(tmp_path / "file"):
        assert not left.exists()
    assert set(tmp_path.iterdir()) == set(others)


def test_what_another_process_is_writing_stays(tmp_path: Path) -> None:
    """A lock counts, not the age: both of these are as old, and one is still worked on."""
    alive, dead = tmp_path / ".file.alive000.tmp", tmp_path / ".file.dead0000.tmp"
    for folder in (alive, dead):
        folder.mkdir()
    held = os.open(alive, os.O_RDONLY)  # as by another process: a lock belongs to what was opened
    fcntl.flock(held, fcntl.LOCK_EX)
    replace_file(tmp_path / "file", b"new")
    assert [alive.exists(), dead.exists()] == [True, False]
    os.close(held)
    replace_file(tmp_path / "file", b"newer")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_one_that_works_holds_the_lock(tmp_path: Path) -> None:
    with temporary_folder(tmp_path / "file") as first, temporary_folder(tmp_path / "file") as second:
        assert first.is_dir()
        assert second.is_dir()


def test_a_folder_that_was_taken_for_abandoned_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may look between making a folder and locking it.

    Here it removes the first before the lock, the second just behind it, and has the lock of the third, to remove it.
    """
    real, seen, held = whole_files._lock_folder, [], []

    def lock(folder: Path) -> "int | None":
        seen.append(folder)
        if len(seen) == 1:
            folder.rmdir()
        if len(seen) == 3:
            held.append(os.open(folder, os.O_RDONLY))
            fcntl.flock(held[0], fcntl.LOCK_EX)
        descriptor = real(folder)
        if len(seen) == 2:
            folder.rmdir()
        return descriptor

    monkeypatch.setattr(whole_files, "_lock_folder", lock)
    with temporary_folder(tmp_path / "file") as folder:
        assert folder == seen[3]
        assert [path for path in seen if path.exists()] == [seen[2], folder]
    os.close(held[0])


def test_a_system_without_locks_writes_and_removes_nothing_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    (tmp_path / ".file.0abcdefg.tmp").mkdir()
    monkeypatch.setattr(fcntl, "flock", refuse)
    replace_file(tmp_path / "file", b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".file.0abcdefg.tmp", "file"]


def test_what_is_written_is_for_the_user_alone(tmp_path: Path) -> None:
    replace_file(tmp_path / "file", b"new")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_a_file_that_a_library_replaces_keeps_its_permissions(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "file", mode=0o644) as temporary:
        temporary.unlink()
        temporary.write_text("new")
        temporary.chmod(0o600)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_a_file_that_fails_leaves_the_older_one_and_nothing_else(tmp_path: Path) -> None:
    replace_file(tmp_path / "file", b"older")

    def write_half() -> None:
        with atomic_file(tmp_path / "file") as temporary:
            temporary.write_bytes(b"half of")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"older")]
