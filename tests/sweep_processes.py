"""Sweeps in processes of their own, stopped or killed at moments that a test chooses."""

import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

# Options of mlic-train for a trial of a few seconds, most of them Python's start.
OPTIONS = [
    "--preset",
    "none",
    "--",
    "--image-size",
    "16",
    "--width",
    "16",
    "--num-layers",
    "1",
    "--num-heads",
    "2",
    "--device",
    "cpu",
]
OPTIONS += ["--batch-size", "36", "--text-batch-size", "18", "--calibration", "none", "--epochs", "2"]

# Evaluated before every optimizer step, with the number of trials begun and whether it is in its second epoch.
KILL_IN_SECOND_TRIAL = "trial == 2 and second_epoch and os.kill(os.getpid(), signal.SIGKILL)"
HOLD = "(print('held', file=sys.stderr, flush=True), sys.stdin.readline())"
HOLD_IN_FIRST_TRIAL = f"trial == 1 and {HOLD}"
HOLD_IN_SECOND_EPOCH = f"trial == 1 and second_epoch and {HOLD}"

_PROGRAM = """
import os, signal, sys
import mlic_train.training.fit as fit
original, begun = fit.set_learning_rate, []
def watch(optimizer, config, step, total):
    if step == 0:
        begun.append(1)
    at(len(begun), step == total // 2)
    original(optimizer, config, step, total)
def at(trial, second_epoch):
    {at}
fit.set_learning_rate = watch
from mlic_train.cli.sweep import sweep
sweep(sys.argv[1:])
"""


def start_sweep(at: str, arguments: Sequence[str]) -> "subprocess.Popen[str]":
    """`mlic-sweep` with those arguments, which evaluates `at` before every optimizer step."""
    program = [sys.executable, "-c", _PROGRAM.format(at=at), *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(program, text=True, stdin=pipe, stdout=pipe, stderr=pipe)


def work_off(where: str, folder: Path, trials: int, said: Connection) -> None:
    """Claim and finish the trials of a study without training, and say each of it: ("claimed", number), ..."""
    from optuna.trial import TrialState

    from mlic_train.sweep.storage import shared_storage, track_liveness
    from mlic_train.sweep.study import Plan, SweepStudy

    with track_liveness(where, folder) as tracker, shared_storage(where, folder, tracker) as storage:
        study = SweepStudy(storage, "queue", Plan("random", {}, "data", {}), [{}] * trials, tracker, tracks_all=True)
        while (trial := study.claim()) is not None:
            said.send(("claimed", trial.number))
            trial.report(0.5, 1 + len(study.reported(trial)))
            if study.is_mine(trial):
                study.finish(trial, TrialState.COMPLETE, 0.5)
                said.send(("finished", trial.number))
