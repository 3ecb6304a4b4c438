"""The heap of a process that makes one prediction."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import mlic_runtime
from mlic_runtime.base import heap
from mlic_runtime.cli import infer as cli

ROOT = Path(mlic_runtime.__file__).parents[1]
CODE = """import resource, sys
from mlic_runtime.base.heap import use_large_pages
done = use_large_pages() if sys.argv[1] == "large" else None
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
kept = [bytearray(size) for size in [1 << 20] * 8]
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
assert all(block == bytes(1 << 20) for block in kept)
print(done, faults)
"""


def run(argument: str, **environment: str) -> "tuple[str, int]":
    """What `use_large_pages` returned in a process of its own, and its page faults for 8 MiB after that."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_PRE"))}
    command = [sys.executable, "-c", CODE, argument]
    done = subprocess.run(
        command, env={**clean, "PYTHONPATH": str(ROOT), **environment}, capture_output=True, text=True, check=True
    )
    result, faults = done.stdout.split()
    return result, int(faults)


def test_memory_comes_in_larger_pages_where_the_kernel_has_them() -> None:
    result, faults = run("large")
    assert result in ("True", "False")
    if result == "True":
        assert faults <= run("plain")[1]


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_what_the_environment_sets_up_is_left_alone(name: str) -> None:
    value = "glibc.malloc.arena_max=2" if name == "GLIBC_TUNABLES" else "2"
    assert run("large", **{name: value})[0] == "False"


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise ValueError(name)

    monkeypatch.setattr(os, "confstr", unknown)
    assert not heap.use_large_pages()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not heap.use_large_pages()


def test_only_the_command_itself_changes_its_heap_and_only_for_one_prediction(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[None] = []
    monkeypatch.setattr(cli, "use_large_pages", lambda: calls.append(None))
    many = ["--input", str(ROOT / "examples"), "--output", str(tmp_path / "labels.jsonl")]
    for own, arguments, expected in [(None, ["", "red"], 0), (True, many, 0), (True, ["--list-models"], 0)]:
        CliRunner().invoke(cli.infer, [*arguments, "--model", str(tiny)], obj=own)
        assert len(calls) == expected
    CliRunner().invoke(cli.infer, [str(ROOT / "examples" / "cat.png"), "red", "--model", str(tiny)], obj=True)
    assert len(calls) == 1
