"""Several processes that torchrun starts."""

import os
import subprocess
import sys
from pathlib import Path

import mlic_train

_SECONDS = 1800  # turns a hang into a failure


def torchrun(*arguments: object, restarts: int = 0) -> subprocess.CompletedProcess[str]:
    """Two processes of a program, on the CPU; torchrun finds a free port, and starts them again so many times."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", str(restarts), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(mlic_train.__file__ or "").parents[1])}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            out, err = process.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            process.terminate()  # not kill: torchrun has to end what it started
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)
