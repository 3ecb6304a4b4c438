"""The jobs that benchmarks/interruptions.py kills: their commands, and checks of their files that hold at any moment.

The data is tiny and made from a fixed seed, so that a job takes seconds.
"""

import csv
import hashlib
import json
import shutil
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from PIL import Image

from mlic_runtime.base.override import override
from mlic_runtime.package.archive import ARCHIVE_SUFFIX
from mlic_runtime.package.model_package import load_package
from mlic_train.runs.folder import BEST_NAME, CONFIG_NAME, LAST_NAME, load_checkpoint, read_run_config
from mlic_train.sweep.storage import JOURNAL_NAME, open_storage

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (20, 40, 210)}
SMALL = ["--image-size", "16", "--width", "16", "--num-layers", "1", "--num-heads", "2", "--device", "cpu"]
SMALL += ["--batch-size", "8", "--text-batch-size", "8", "--vocab-size", "60", "--ema-decay", "0.9"]


class LostError(Exception):
    """Something that was reported as saved is missing, or a file is half-written."""


def make_data(folder: Path) -> Path:
    """Make a labelled folder: 24 pictures for training, 12 each for val and test; captions name their colours."""
    (folder / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    _write_csv(folder / "labels.csv", [("LabelID", "Name"), *enumerate(COLOURS, start=1)])
    names = list(COLOURS)
    for split, count in (("train", 24), ("val", 12), ("test", 12)):
        rows: list[tuple[object, ...]] = [("ImageID", "Labels", "Caption")]
        for index in range(count):
            picked = sorted(random.choice(3, size=random.integers(1, 3), replace=False))
            pixels = random.integers(0, 20, (16, 16, 3), dtype=np.uint8)
            pixels[:8] += np.array(COLOURS[names[picked[0]]], np.uint8)
            pixels[8:] += np.array(COLOURS[names[picked[-1]]], np.uint8)
            Image.fromarray(pixels).save(folder / "images" / f"{split}{index}.png")
            caption = "a wall in " + " and ".join(names[i] for i in picked)
            rows.append((f"{split}{index}.png", " ".join(str(i + 1) for i in picked), caption))
        _write_csv(folder / f"{split}.csv", rows)
    return folder


def _write_csv(path: Path, rows: list[Any]) -> None:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)


def temporaries(folder: Path) -> list[Path]:
    """Return the temporary files and folders in `folder` and its subfolders, also those of killed processes."""
    try:
        return [*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")]
    except FileNotFoundError:  # one of them was removed meanwhile
        return []


class Job(ABC):
    """A command that is killed and started again.

    Attributes:
        folder: everything that belongs to the job.
        written: the folder in it whose files the command writes.
    """

    def __init__(self, folder: Path, written: Path) -> None:
        self.folder, self.written = folder, written

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command of the next attempt."""

    @abstractmethod
    def begin(self) -> None:
        """Set up the job's folder for a first attempt."""

    @abstractmethod
    def check(self, out: str, error: str) -> str:
        """Check the files after an attempt that printed `out` and `error`.

        Returns:
            Where the process was when it ended.

        Raises:
            LostError: something is missing or half-written.
        """

    @abstractmethod
    def result(self, out: str) -> dict[str, Any]:
        """Return what must equal the result of an uninterrupted run."""


class Training(Job):
    """`mlic-train`, and after a kill the same command with --resume."""

    def __init__(self, folder: Path, data: Path, epochs: int = 6) -> None:
        self.run = folder / "run"
        super().__init__(folder, self.run)
        self.data, self.epochs = data, epochs
        self._epoch = 0

    @override
    def command(self) -> list[str]:
        given = ["mlic-train", "--data", str(self.data), "--output", str(self.run), "--epochs", str(self.epochs)]
        return [*given, "--preset", "none", *SMALL, *(["--resume"] if (self.run / CONFIG_NAME).exists() else [])]

    @override
    def begin(self, older: Path | None = None) -> None:
        """Begin without a run, or with a copy of an older one."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self._epoch = 0
        if older is not None:
            shutil.copytree(older, self.run)
            self._epoch = int(load_checkpoint(self.run / LAST_NAME).state.epoch)

    @override
    def check(self, out: str, error: str) -> str:
        """Check that every reported epoch is in the last checkpoint, and that no file is half-written."""
        if not (self.run / CONFIG_NAME).exists():
            return "before the run could be resumed"
        read_run_config(self.run)
        json.loads((self.run / "tokenizer.json").read_text(encoding="utf-8"))
        state = load_checkpoint(self.run / LAST_NAME).state
        said = [int(line.split()[1].partition("/")[0]) for line in error.splitlines() if line.startswith("epoch ")]
        least = max([self._epoch, *said])
        if state.epoch < least:
            raise LostError(f"epoch {least} was reported, the last checkpoint is of epoch {state.epoch}")
        self._epoch = state.epoch
        if state.epoch and not load_checkpoint(self.run / BEST_NAME).state.thresholds:
            raise LostError("the best checkpoint has no thresholds")
        if temporaries(self.written):
            return "while a checkpoint was written"
        return "calibrating and measuring" if state.finished else "training"

    @override
    def result(self, out: str) -> dict[str, Any]:
        files = {name: load_checkpoint(self.run / name) for name in (BEST_NAME, LAST_NAME)}
        history = [{**row, "seconds": 0} for row in files[LAST_NAME].state.history]
        tensors = {f"{name} {key}": tensor for name, file in files.items() for key, tensor in file.model.items()}
        return {"tensors": tensors, "history": history, "printed": out.replace(str(self.folder), "")}


class Sweep(Job):
    """`mlic-sweep` over a grid of four trials, which the same command continues."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.output = folder / "sweep"
        super().__init__(folder, self.output)
        self.data = data
        self._ended: dict[int, Any] = {}

    @override
    def command(self) -> list[str]:
        given = ["--data", str(self.data), "--space", str(self.folder / "space.toml"), "--output", str(self.output)]
        return [
            "mlic-sweep",
            *given,
            "--preset",
            "none",
            "--sampler",
            "grid",
            "--format",
            "json",
            "--",
            "--epochs",
            "2",
            *SMALL,
        ]

    @override
    def begin(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        (self.folder / "space.toml").write_text(
            "[learning_rate]\nchoices = [0.003, 0.01]\n[dropout]\nchoices = [0.1, 0.3]\n"
        )
        self._ended = {}

    @override
    def check(self, out: str, error: str) -> str:
        """Check that every reported trial is in the study as it was, and that none ended a second time."""
        journal = self.output / JOURNAL_NAME
        if not journal.exists():
            return "before the study"
        try:
            study = optuna.load_study(study_name="sweep", storage=open_storage(None, self.output))
        except KeyError:
            return "before the study"
        trials = study.get_trials()
        ended = {t.number: (t.state, t.value, t.datetime_complete) for t in trials if t.state.is_finished()}
        lost = [number for number, how in self._ended.items() if ended.get(number) != how]
        said = {int(line.split()[1][:-1]) for line in error.splitlines() if ": val samples F1" in line}
        if lost or said - ended.keys():
            raise LostError(f"not all of the trials {lost or said} are as they were reported: {ended}")
        self._ended = ended
        for number in ended:
            json.loads((self.output / f"trial-{number:04d}" / "metrics.json").read_text(encoding="utf-8"))
        for path in self.output.glob("trial-*/*.safetensors"):
            load_checkpoint(path)
        if temporaries(self.written):
            return "while a file of a trial was written"
        return f"with {len(ended)} of {len(trials)} trials done"

    @override
    def result(self, out: str) -> dict[str, Any]:
        trials = json.loads(out.replace(str(self.folder), ""))["trials"]
        return {"trials": sorted(({**row, "seconds": 0} for row in trials), key=lambda row: int(row["trial"]))}


class Export(Job):
    """`mlic-export --single-file` over an older package and an older file."""

    def __init__(self, folder: Path, run: Path) -> None:
        super().__init__(folder, folder / "packages")
        self.run = run
        self.output = self.written / "tiny"
        self.archive = self.output.with_name(f"{self.output.name}{ARCHIVE_SUFFIX}")
        self.older: dict[str, str] = {}
        self.newer: dict[str, str] = {}

    @override
    def command(self, version: str = "0.2.0") -> list[str]:
        given = ["--run", str(self.run), "--output", str(self.output), "--package-version", version]
        return ["mlic-export", *given, "--single-file"]

    def keep(self) -> None:
        """Keep what is there now as the older package of later attempts."""
        self.older = self._state()
        shutil.rmtree(self.folder / "older", ignore_errors=True)
        shutil.copytree(self.output.parent, self.folder / "older")

    @override
    def begin(self) -> None:
        shutil.rmtree(self.output.parent, ignore_errors=True)
        shutil.copytree(self.folder / "older", self.output.parent)

    @override
    def check(self, out: str, error: str) -> str:
        """Check that package and file are the older or the newer ones, whole, and that what was printed is there."""
        now = self._state()
        for name in ("package", "archive"):
            if now[name] not in (self.older[name], self.newer.get(name, now[name])):
                raise LostError(f"{name}: neither the older nor the newer one")
        load_package(self.output).verify()
        load_package(self.archive).verify()
        if (out and now["package"] == self.older["package"]) or (
            str(self.archive) in out and now["archive"] == self.older["archive"]
        ):
            raise LostError("what was reported is not there")
        if temporaries(self.written):
            return "while package or file were written"
        return "between package and file" if now["package"] != self.older["package"] else "making the graph"

    @override
    def result(self, out: str) -> dict[str, Any]:
        return {**self._state(), "printed": out.replace(str(self.folder), "")}

    def _state(self) -> dict[str, str]:
        package = hashlib.sha256()
        for path in sorted(self.output.iterdir()):
            package.update(path.name.encode() + path.read_bytes())
        return {"package": package.hexdigest(), "archive": hashlib.sha256(self.archive.read_bytes()).hexdigest()}


class Batch(Job):
    """`mlic-infer --input ROWS --output FILE --resume` over an older FILE."""

    OLDER = b"older results\n"

    def __init__(self, folder: Path, model: Path, rows: int = 4000) -> None:
        super().__init__(folder, folder / "out")
        self.model, self.rows = model, rows
        self.output = self.written / "results.jsonl"
        self.partial = self.output.with_name(self.output.name + ".partial")
        self.journal = self.output.with_name(self.output.name + ".partial.journal")
        self.expected = b""
        self._marked = 0

    @override
    def command(self) -> list[str]:
        given = ["--model", str(self.model), "--input", str(self.folder / "in" / "rows.csv")]
        resume = ["--resume"] if self.partial.exists() or self.journal.exists() else []
        return ["mlic-infer", *given, "--output", str(self.output), "--batch-size", "8", "--threads", "1", *resume]

    @override
    def begin(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "in").mkdir(parents=True)
        self.output.parent.mkdir()
        pictures = np.random.default_rng(1).integers(0, 256, (16, 12, 16, 3), dtype=np.uint8)
        for index, pixels in enumerate(pictures):
            Image.fromarray(pixels).save(self.folder / "in" / f"{index}.png")
        lines = (f"{n % 16}.png,{('red', 'no blue', 'bright green', '')[n % 4]}\n" for n in range(self.rows))
        (self.folder / "in" / "rows.csv").write_text("ImageID,Caption\n" + "".join(lines))
        self.output.write_bytes(self.OLDER)
        self._marked = 0

    @override
    def check(self, out: str, error: str) -> str:
        """Check that FILE is the older or the whole newer one, and that FILE.partial has all results of the journal."""
        now = self.output.read_bytes()
        if now == self.expected:
            return "after the file got its name"
        if now != self.OLDER:
            raise LostError("the result file is neither the older nor the newer one")
        if not self.partial.exists() or not self.journal.exists():
            return "before the first result"
        results, last = self.partial.read_bytes(), [0, 0, 0, 0, 0]
        for last in self._marks():  # noqa: B007 # the last one counts
            pass
        if last[0] < self._marked or zlib.crc32(results[: last[1]]) != last[3]:
            raise LostError(f"{self._marked} rows were saved, {last[0]} are there")
        if not self.expected.startswith(results):
            raise LostError("the partial results are not the beginning of the results")
        self._marked = last[0]
        return "before the first result" if last[0] == 0 else "between the first result and the last"

    def _marks(self) -> Iterator[list[int]]:
        """Return the whole lines of the journal without the first."""
        for line in self.journal.read_bytes().split(b"\n")[1:-1]:
            yield json.loads(line)

    @override
    def result(self, out: str) -> dict[str, Any]:
        return {"results": self.output.read_bytes(), "files": sorted(p.name for p in self.output.parent.iterdir())}


def difference(first: dict[str, Any], second: dict[str, Any]) -> float:
    """Return the largest absolute difference of the tensors.

    Raises:
        LostError: something else is not equal.
    """
    largest = 0.0
    for name, value in first.items():
        if name == "tensors":
            if value.keys() != second[name].keys():
                raise LostError("the checkpoints have other tensors")
            for key, tensor in value.items():
                gap = (tensor.to(torch.float64) - second[name][key].to(torch.float64)).abs().max()
                largest = max(largest, float(gap))
        elif value != second[name]:
            raise LostError(f"{name} differs from an uninterrupted run: {str(value)[:300]} {str(second[name])[:300]}")
    return largest
