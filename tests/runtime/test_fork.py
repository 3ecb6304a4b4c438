import os
import subprocess
import sys
from pathlib import Path

import pytest

import mlic_runtime

# What the child does, which inherits `predictor`, and with which exit code it ends.
PROGRAM = """
import os, sys
import numpy as np
from mlic_runtime import MlicError, Predictor

def load():
    return Predictor.load(sys.argv[1], threads=4)

picture = np.zeros((6, 8, 3), np.uint8)
predictor = load()
expected = predictor.predict(picture, "red")
child = os.fork()
if child == 0:
    {child}
_, status = os.waitpid(child, 0)
assert predictor.predict(picture, "red") == expected
print(os.waitstatus_to_exitcode(status))
"""
USE = """
    try:
        predictor.predict(picture, "red")
    except MlicError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        os._exit(7)
"""


def run(tiny: Path, child: str) -> "list[str]":
    """Run PROGRAM with this child, and return the lines that it prints."""
    environment = {**os.environ, "PYTHONPATH": str(Path(mlic_runtime.__file__).parents[1])}
    command = [sys.executable, "-c", PROGRAM.format(child=child), str(tiny)]
    # The limit turns a hang into a failure.
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_forked_predictor_says_that_it_cannot_run(tiny: Path) -> None:
    message, code = run(tiny, USE)
    assert code == "7"
    assert message.startswith("ProviderError: the model was loaded by process ")
    assert "load it in each worker (gunicorn: without --preload)" in message


@pytest.mark.parametrize("child", ["sys.exit(3)", "del predictor; os._exit(3)", "del predictor; sys.exit(3)"])
def test_a_forked_predictor_is_not_freed(tiny: Path, child: str) -> None:
    assert run(tiny, child) == ["3"]


def test_a_fork_may_load_its_own(tiny: Path) -> None:
    child = "own = load(); same = own.predict(picture, 'red') == expected; del own; sys.exit(5 if same else 6)"
    assert run(tiny, child) == ["5"]


def test_a_fork_of_a_fork_is_like_a_fork(tiny: Path) -> None:
    child = "grandchild = os.fork(); sys.exit(0 if grandchild == 0 else os.waitstatus_to_exitcode(os.wait()[1]) + 4)"
    assert run(tiny, child) == ["4"]
