"""Several processes that torchrun starts."""

import os
import subprocess
import sys
from pathlib import Path

import mlic_train


def torchrun(*arguments: object, restarts: int = 0) -> subprocess.CompletedProcess[str]:
    """Two processes of a program, on the CPU; torchrun finds a free port, and starts them again so many times."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", str(restarts)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(mlic_train.__file__ or "").parents[1])}
    return subprocess.run(
        [*command, *map(str, arguments)], env=environment, capture_output=True, text=True, check=False, timeout=1800
    )
