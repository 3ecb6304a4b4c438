import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_generator_writes_the_packages_that_the_tests_use(tmp_path: Path) -> None:
    root = str(TESTS.parent)  # the checkout's mlic_runtime, installed or not
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    subprocess.run([sys.executable, TESTS / "tiny_package.py", tmp_path], check=True, env=environment)
    found, expected = contents(tmp_path), contents(TESTS / "data")
    assert sorted(found) == sorted(name for name in expected if name.startswith("tiny"))
    for name, content in found.items():
        assert content == expected[name], name
