"""`python -m mlic_train` is `mlic-train`, in the form that torchrun can start several times."""

import contextlib
import io
import os
import sys

from mlic_train.cli.train import train

if __name__ == "__main__":
    # stdout is data, and all processes have the same
    with contextlib.redirect_stdout(sys.stdout if os.environ.get("RANK", "0") == "0" else io.StringIO()):
        train(prog_name="mlic-train")
