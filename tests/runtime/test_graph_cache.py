import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner

import mlic_runtime
from mlic_runtime.base import machine
from mlic_runtime.base.user_folders import cache_folder
from mlic_runtime.cli.bench import bench
from mlic_runtime.cli.infer import infer
from mlic_runtime.errors import IntegrityError, PackageError
from mlic_runtime.graph import cache as module
from mlic_runtime.graph.cache import CacheEntry, find_entry
from mlic_runtime.graph.opening import OpenedGraph, open_graph, open_graphs
from mlic_runtime.graph.session import create_session
from mlic_runtime.package.model_package import load_package

ADDED, TAKEN, WITHOUT = "added to the cache", "from the cache", "without the cache"
ROOT = Path(mlic_runtime.__file__).parents[1]
RELEASED = ROOT / "exported" / "hybrid"


def opened(folder: Path, **options: Any) -> OpenedGraph:
    return open_graph(load_package(folder), threads=1, **options)


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.graph"))


def only(folder: Path) -> Path:
    """The only file in the cache: no other, and nothing temporary."""
    (path,) = folder.iterdir()
    return path


def logits(graph: OpenedGraph, rows: int = 2) -> bytes:
    session = graph.session
    assert session.height is not None
    assert session.width is not None
    random = np.random.default_rng(rows)
    pixels = random.integers(0, 256, (rows, session.height, session.width, 3), dtype=np.uint8)
    ids = random.integers(1, 6, (rows, 2 * rows))
    mask = (np.arange(2 * rows) < random.integers(0, 2 * rows + 1, (rows, 1))).astype(np.int64)
    return session.run(pixels, ids, mask).tobytes()


# --- what it is for


def test_the_second_time_a_graph_comes_from_the_cache(tiny: Path, graph_cache: Path) -> None:
    assert opened(tiny).origin == ADDED
    before = only(graph_cache).read_bytes()
    assert opened(tiny).origin == TAKEN
    assert only(graph_cache).read_bytes() == before


@pytest.mark.parametrize(
    ("released", "precision"), [(True, "fp32"), (False, "fp16"), (True, "int8")], ids=["fp32", "fp16", "int8"]
)
def test_the_answers_are_the_same_to_the_last_bit(tiny: Path, released: bool, precision: str) -> None:
    package = RELEASED if released else tiny
    graphs = [opened(package, precision=precision, cache=cache) for cache in (False, True, True)]
    assert [graph.origin for graph in graphs] == [WITHOUT, ADDED, TAKEN]
    for rows in (1, 2, 3):
        assert len({logits(graph, rows) for graph in graphs}) == 1


def test_a_cached_graph_is_the_one_that_runs(tiny: Path, tiny_picture: Path, graph_cache: Path) -> None:
    """Proven by an entry with another graph in it, written as only this user's own code could."""
    opened(tiny)
    entry = CacheEntry(only(graph_cache))
    other = (tiny_picture / "model.fp32.onnx").read_bytes()
    with entry.saving() as path:
        create_session(other, save_to=path)
    with pytest.raises(PackageError, match="reads no caption"):
        opened(tiny)


def test_it_is_not_optimised_again(tiny: Path, fake_runtime: Callable[..., Any]) -> None:
    opened(tiny)
    fake = fake_runtime(["cpu"], {"cpu"})
    opened(tiny)
    assert fake.options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert len(fake.providers) == 1


def test_the_name_says_what_an_entry_was_made_from_and_for(tiny: Path, graph_cache: Path) -> None:
    opened(tiny)
    sha256 = load_package(tiny).manifest.files["model.fp32.onnx"].sha256
    assert only(graph_cache).name.startswith(f"{sha256}-ort{onnxruntime.__version__}-cpu-")


def test_every_precision_has_an_entry(tiny: Path, graph_cache: Path) -> None:
    open_graphs(load_package(tiny))
    assert len(entries(graph_cache)) == 2
    assert [opened(tiny, precision=name).origin for name in ("fp32", "fp16")] == [TAKEN, TAKEN]


@pytest.mark.parametrize("what", ["version", "build", "processor", "mlic"])
def test_an_entry_for_something_else_is_not_taken(
    what: str, tiny: Path, graph_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened(tiny)
    if what == "version":
        monkeypatch.setattr(onnxruntime, "__version__", "0.9")
    elif what == "build":
        monkeypatch.setattr(onnxruntime, "get_build_info", lambda: "mine")
    elif what == "processor":
        (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name : Z80\nflags : none\n")
        monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    else:
        monkeypatch.setattr(module, "__version__", "0")
    assert opened(tiny).origin == ADDED
    assert len(entries(graph_cache)) == 2


def test_the_load_of_a_processor_does_not_change_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "_CPUINFO", cpuinfo)
    found = []
    for line in ("cpu MHz : 1000", "cpu MHz : 2000", "flags : fpu", "flags : fpu avx2"):
        cpuinfo.write_text(f"processor : 0\nmodel name : Z80\n{line}\n\nprocessor : 1\nmodel name : 6502\n")
        found.append(find_entry("0" * 64, "cpu"))
    names = [entry.path.name for entry in found if entry is not None]
    assert names[0] == names[1]
    assert len(set(names)) == 3


def test_only_the_cpu_has_a_cache(tiny: Path, graph_cache: Path, fake_runtime: Callable[..., Any]) -> None:
    fake_runtime(["cuda", "cpu"], {"cuda", "cpu"})
    assert opened(tiny, provider="cuda").origin == WITHOUT
    assert not graph_cache.exists()


def test_a_session_of_its_own_leaves_the_cache_alone(tiny: Path, graph_cache: Path) -> None:
    create_session((tiny / "model.fp32.onnx").read_bytes())
    assert not graph_cache.parent.exists()


# --- what is wrong with an entry


def _flip(index: int) -> Callable[[Path], None]:
    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[index] ^= 1
        path.write_bytes(content)

    return flip


def _link(path: Path) -> None:
    elsewhere = path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(elsewhere)


def _swap(path: Path) -> None:
    """The entry of another graph, whole, but under this one's name."""
    opened(ROOT / "tests" / "data" / "tiny", precision="fp16")
    (other,) = [found for found in entries(path.parent) if found != path]
    other.replace(path)


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "first byte": (_flip(0), "it is damaged"),
    "middle byte": (_flip(1000), "it is damaged"),
    "last byte": (_flip(-1), "it is damaged"),
    "its size": (_flip(-40), "it is damaged"),
    "magic": (_flip(-48), "it is damaged"),
    "cut off": (lambda path: os.truncate(path, path.stat().st_size - 1), "it is damaged"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "it is damaged"),
    "empty": (lambda path: os.truncate(path, 0), "it is too short"),
    "trailer": (lambda path: path.write_bytes(path.read_bytes()[-48:]), "it is too short"),
    "another's": (_swap, "it is damaged"),
    "link": (_link, "it is a symbolic link"),
    "group": (lambda path: path.chmod(0o620), "others may write to it"),
    "all": (lambda path: path.chmod(0o602), "others may write to it"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_entry_with_anything_wrong_is_replaced(name: str, tiny: Path, graph_cache: Path) -> None:
    expected = logits(opened(tiny, cache=False))
    opened(tiny)
    path = only(graph_cache)
    damage, why = WRONG[name]
    damage(path)
    entry = CacheEntry(path)
    assert entry.read() is None
    assert entry.note == f"not taken from the cache: {why}"
    graph = opened(tiny)
    assert (graph.origin, logits(graph)) == (f"replaced in the cache: {why}", expected)
    assert only(graph_cache) == path
    assert not path.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600
    assert opened(tiny).origin == TAKEN


def test_a_fifo_is_not_waited_for(tiny: Path, graph_cache: Path) -> None:
    opened(tiny)
    path = only(graph_cache)
    path.unlink()
    os.mkfifo(path)
    assert opened(tiny).origin == "replaced in the cache: it is not a regular file"
    assert opened(tiny).origin == TAKEN


def test_what_another_user_owns_is_not_taken(tiny: Path, graph_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tiny)
    before = only(graph_cache).read_bytes()
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    assert CacheEntry(only(graph_cache)).read() is None
    assert opened(tiny).origin == "not kept in the cache: its folder belongs to another user"
    assert only(graph_cache).read_bytes() == before


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_may_write_to_is_left_alone(mode: int, tiny: Path, graph_cache: Path) -> None:
    opened(tiny)
    graph_cache.chmod(mode)
    assert CacheEntry(only(graph_cache)).read() is None
    assert opened(tiny).origin == "not kept in the cache: others may write to its folder"


def test_a_folder_that_is_a_link_is_left_alone(tiny: Path, graph_cache: Path, tmp_path: Path) -> None:
    graph_cache.parent.mkdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    graph_cache.symlink_to(tmp_path / "elsewhere")
    assert opened(tiny).origin == "not kept in the cache: its folder is a symbolic link"
    assert not list((tmp_path / "elsewhere").iterdir())


def test_an_entry_that_does_not_load_is_replaced(tiny: Path, graph_cache: Path) -> None:
    """What a disk that was full may leave: cut off before it was hashed."""
    opened(tiny)
    entry = CacheEntry(only(graph_cache))
    good = entry.path.read_bytes()
    with entry.saving() as path:
        assert path is not None
        path.write_bytes(good[:500])
    assert entry.read() == good[:500]
    assert opened(tiny).origin.startswith("replaced in the cache: ONNX Runtime cannot load the graph: ")
    assert opened(tiny).origin == TAKEN


def test_a_damaged_package_is_refused_though_its_graph_is_in_the_cache(tiny_copy: Path) -> None:
    opened(tiny_copy)
    graph = tiny_copy / "model.fp32.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\xff")
    with pytest.raises(IntegrityError, match=r"model\.fp32\.onnx has sha256"):
        opened(tiny_copy)


def test_a_graph_that_is_refused_is_never_kept(
    tiny_copy: Path, graph_cache: Path, replace_file: Callable[[Path, str, bytes], None]
) -> None:
    replace_file(tiny_copy, "model.fp32.onnx", b"\x3a\x00")  # an empty graph
    with pytest.raises(PackageError):
        opened(tiny_copy)
    assert list(graph_cache.iterdir()) == []


# --- where it cannot be kept


def test_files_and_folder_are_for_the_user_alone(tiny: Path, graph_cache: Path) -> None:
    opened(tiny)
    assert graph_cache.stat().st_mode & 0o777 == 0o700
    assert only(graph_cache).stat().st_mode & 0o777 == 0o600


def test_without_a_home_there_is_no_cache(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    assert cache_folder() is None
    assert opened(tiny).origin == WITHOUT


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "Local"))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    found = {}
    for system in ("linux", "darwin", "win32"):
        monkeypatch.setattr(sys, "platform", system)
        found[system] = cache_folder()
    assert found == {
        "linux": tmp_path / ".cache" / "mlic",
        "darwin": tmp_path / "Library" / "Caches" / "mlic",
        "win32": tmp_path / "Local" / "mlic" / "Cache",
    }
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine" / "mlic"


def test_a_home_that_cannot_have_a_folder_is_no_error(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in its place, for root may write to read-only folders."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert opened(tiny).origin == "not kept in the cache: Not a directory"


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_to_is_no_error(
    number: int, tiny: Path, graph_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("tempfile.mkdtemp", refuse)
        assert opened(tiny).origin == f"not kept in the cache: {os.strerror(number)}"
    assert list(graph_cache.iterdir()) == []


def test_a_disk_that_is_full_at_the_end_is_no_error(
    tiny: Path, graph_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    expected = logits(opened(tiny, cache=False))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        graph = opened(tiny)
    assert (graph.origin, logits(graph)) == ("not kept in the cache: No space left on device", expected)
    assert list(graph_cache.iterdir()) == []


FULL_DISK = """
import resource, signal, sys
from mlic_runtime.graph.opening import open_graph
from mlic_runtime.package.model_package import load_package
package = load_package(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
graph = open_graph(package)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(graph.session.num_labels, graph.origin)
"""


def run(code: str, *arguments: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("limit", [0, 100])
def test_onnx_runtime_itself_meets_a_full_disk(limit: int, tiny: Path, graph_cache: Path) -> None:
    process = run(FULL_DISK, str(tiny), str(limit))
    out, error = process.communicate()
    assert (process.returncode, error) == (0, "")
    assert out.startswith("3 not ")
    assert list(graph_cache.iterdir()) == []


# --- how much of it


def test_the_newest_stay(graph_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CACHE_ENTRIES", 3)
    for index in range(5):
        fill(graph_cache / f"{index}.graph", b"x" * 100)
        os.utime(graph_cache / f"{index}.graph", (index, index))
    names = [path.name for path in entries(graph_cache)]
    assert names == ["2.graph", "3.graph", "4.graph"]


def test_what_is_too_much_goes_but_never_the_newest(graph_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CACHE_BYTES", 500)
    for index in range(4):
        fill(graph_cache / f"{index}.graph", b"x" * 100)
        os.utime(graph_cache / f"{index}.graph", (index, index))
    assert [path.name for path in entries(graph_cache)] == ["1.graph", "2.graph", "3.graph"]
    fill(graph_cache / "large.graph", b"x" * 600)
    assert [path.name for path in entries(graph_cache)] == ["large.graph"]


def test_what_killed_processes_left_is_removed_and_nothing_of_living_ones(graph_cache: Path) -> None:
    with CacheEntry(graph_cache / "1.graph").saving() as alive:
        assert alive is not None
        killed = graph_cache / ".entry.0a_bcdef.tmp"
        killed.mkdir()
        (killed / "graph").write_text("half of it")
        (graph_cache / "stranger").write_text("")
        fill(graph_cache / "0.graph", b"x")
        assert {path.name for path in graph_cache.iterdir()} == {"0.graph", "stranger", alive.parent.name}
    assert {path.name for path in graph_cache.iterdir()} == {"0.graph", "1.graph", "stranger"}


def fill(path: Path, content: bytes) -> None:
    with CacheEntry(path).saving() as temporary:
        assert temporary is not None
        temporary.write_bytes(content)


# --- several processes, and the command line

AT_ONCE = """
import sys
from mlic_runtime.graph.opening import open_graph
from mlic_runtime.package.model_package import load_package
import numpy as np
package = load_package(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(5):
    graph = open_graph(package)
    print(graph.origin, graph.session.run(np.zeros((1, 6, 8, 3), np.uint8), *np.ones((2, 1, 2), np.int64)).tolist())
"""


def test_processes_that_start_at_once_share_the_cache(tiny: Path, graph_cache: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", AT_ONCE, str(tiny)],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = set()
    for process in processes:
        out, error = process.communicate()
        assert (process.returncode, error) == (0, "")
        origins, found = zip(*(line.split(" [[") for line in out.splitlines()), strict=True)
        assert set(origins) <= {ADDED, TAKEN}
        assert set(origins[1:]) == {TAKEN}
        answers |= set(found)
    assert len(answers) == 1
    assert CacheEntry(only(graph_cache)).read() is not None


@pytest.mark.parametrize("damaged", [False, True])
def test_no_cache_neither_reads_nor_writes(damaged: bool, tiny: Path, graph_cache: Path, tmp_path: Path) -> None:
    if damaged:
        opened(tiny)
        only(graph_cache).write_bytes(b"damaged")
    (tmp_path / "rows.csv").write_text("caption\nred\n")
    commands: list[tuple[click.Command, list[str]]] = [
        (infer, ["--input", str(tmp_path / "rows.csv"), "-v"]),
        (bench, ["--runs", "1", "--warmup", "1"]),
        (bench, ["--runs", "1", "--warmup", "1", "--choose"]),
        (bench, ["--runs", "1", "--warmup", "1", "--stages"]),
        (bench, ["--runs", "1", "--warmup", "1", "--cold-start"]),
    ]
    for command, options in commands:
        result = CliRunner().invoke(command, [*options, "--model", str(tiny), "--no-cache"])
        assert result.exit_code == 0, result.output
        if command is infer:
            assert result.stderr.endswith("; graph: without the cache)\n")
        if damaged:
            assert only(graph_cache).read_bytes() == b"damaged"
        else:
            assert not graph_cache.parent.exists()


HEAVY = ("numpy", "PIL", "onnxruntime", "tokenizers")


@pytest.mark.parametrize("command", ["cli.infer:infer", "cli.bench:bench"])
def test_help_loads_nothing_heavy(command: str) -> None:
    module, name = command.split(":")
    code = f"""
import sys
from mlic_runtime.{module} import {name}
try:
    {name}(["--help"])
finally:
    print([module for module in {HEAVY} if module in sys.modules])
"""
    process = run(code)
    out, error = process.communicate()
    assert (process.returncode, error) == (0, "")
    assert out.startswith("Usage: ")
    assert out.endswith("\n[]\n")
