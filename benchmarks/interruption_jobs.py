"""The jobs that benchmarks/interruptions.py kills: what starts them, and what must hold of their files at any moment.

The data is tiny and made here from a fixed seed, so that a job takes seconds.
"""

import csv
import hashlib
import json
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from PIL import Image

from mlic_runtime.package.archive import ARCHIVE_SUFFIX
from mlic_runtime.package.model_package import load_package
from mlic_train.runs.checkpoint import BEST_NAME, CONFIG_NAME, LAST_NAME, load_checkpoint, read_run_config
from mlic_train.sweep.storage import JOURNAL_NAME, open_storage

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (20, 40, 210)}
SMALL = ["--image-size", "16", "--width", "16", "--num-layers", "1", "--num-heads", "2", "--device", "cpu"]
SMALL += ["--batch-size", "8", "--text-batch-size", "8", "--vocab-size", "60", "--ema-decay", "0.9"]


class LostError(Exception):
    """Something that was reported as saved is not there, or a file is half-written."""


def make_data(folder: Path) -> Path:
    """A labelled folder: 24 pictures for training and 12 each for val and test, whose captions name their colours."""
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
    """What is being written in `folder` or a folder in it, or was when the process that did it was killed."""
    try:
        return [*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")]
    except FileNotFoundError:  # one of them went while it was looked into
        return []


class Training:
    """`mlic-train`, and after a kill the same command with --resume."""

    def __init__(self, folder: Path, data: Path, epochs: int = 6) -> None:
        self.folder, self.data, self.epochs = folder, data, epochs
        self.run = self.written = folder / "run"
        self._epoch = 0

    def command(self) -> list[str]:
        """The next attempt's."""
        given = ["mlic-train", "--data", str(self.data), "--output", str(self.run), "--epochs", str(self.epochs)]
        return [*given, *SMALL, *(["--resume"] if (self.run / CONFIG_NAME).exists() else [])]

    def begin(self, older: Path | None = None) -> None:
        """From nothing, or from a run that is there."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self._epoch = 0
        if older is not None:
            shutil.copytree(older, self.run)
            self._epoch = int(load_checkpoint(self.run / LAST_NAME).state.epoch)

    def check(self, out: str, error: str) -> str:
        """Every epoch that was reported is in the last checkpoint, and no file is half-written.

        Returns:
            Where the process was.
        """
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

    def result(self, out: str) -> dict[str, Any]:
        """What an uninterrupted run must have as well: tensors exactly, and what was printed."""
        files = {name: load_checkpoint(self.run / name) for name in (BEST_NAME, LAST_NAME)}
        history = [{**row, "seconds": 0} for row in files[LAST_NAME].state.history]
        tensors = {f"{name} {key}": tensor for name, file in files.items() for key, tensor in file.model.items()}
        return {"tensors": tensors, "history": history, "printed": out.replace(str(self.folder), "")}


class Sweep:
    """`mlic-sweep` over a grid of four trials; the same command goes on."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data = folder, data
        self.output = self.written = folder / "sweep"
        self._ended: dict[int, Any] = {}

    def command(self) -> list[str]:
        """The next attempt's."""
        given = ["--data", str(self.data), "--space", str(self.folder / "space.toml"), "--output", str(self.output)]
        return ["mlic-sweep", *given, "--sampler", "grid", "--format", "json", "--", "--epochs", "2", *SMALL]

    def begin(self) -> None:
        """From nothing."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        (self.folder / "space.toml").write_text(
            "[learning_rate]\nchoices = [0.003, 0.01]\n[dropout]\nchoices = [0.1, 0.3]\n"
        )
        self._ended = {}

    def check(self, out: str, error: str) -> str:
        """Every trial that was reported is in the study as it was; none ended a second time."""
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
            raise LostError(f"of the trials {lost or said} not all are as they were reported: {ended}")
        self._ended = ended
        for number in ended:
            json.loads((self.output / f"trial-{number:04d}" / "metrics.json").read_text(encoding="utf-8"))
        for path in self.output.glob("trial-*/*.safetensors"):
            load_checkpoint(path)
        if temporaries(self.written):
            return "while a file of a trial was written"
        return f"with {len(ended)} of {len(trials)} trials done"

    def result(self, out: str) -> dict[str, Any]:
        """All trials, without their times."""
        trials = json.loads(out.replace(str(self.folder), ""))["trials"]
        return {"trials": sorted(({**row, "seconds": 0} for row in trials), key=lambda row: int(row["trial"]))}


class Export:
    """`mlic-export --single-file` over an older package and an older file."""

    def __init__(self, folder: Path, run: Path) -> None:
        self.folder, self.run = folder, run
        self.written = folder / "packages"
        self.output = self.written / "tiny"
        self.archive = self.output.with_name(f"{self.output.name}{ARCHIVE_SUFFIX}")
        self.older: dict[str, str] = {}
        self.newer: dict[str, str] = {}

    def command(self, version: str = "0.2.0") -> list[str]:
        """The next attempt's."""
        given = ["--run", str(self.run), "--output", str(self.output), "--package-version", version]
        return ["mlic-export", *given, "--single-file"]

    def keep(self) -> None:
        """What is there now is what later rounds find as the older package."""
        self.older = self._state()
        shutil.rmtree(self.folder / "older", ignore_errors=True)
        shutil.copytree(self.output.parent, self.folder / "older")

    def begin(self) -> None:
        """From the older package."""
        shutil.rmtree(self.output.parent, ignore_errors=True)
        shutil.copytree(self.folder / "older", self.output.parent)

    def check(self, out: str, error: str) -> str:
        """Package and file are the older or the newer ones, whole; what was printed is there."""
        found = self._state()
        for name in ("package", "archive"):
            if found[name] not in (self.older[name], self.newer.get(name, found[name])):
                raise LostError(f"{name}: neither the older nor the newer one")
        load_package(self.output).verify()
        load_package(self.archive).verify()
        if (out and found["package"] == self.older["package"]) or (
            str(self.archive) in out and found["archive"] == self.older["archive"]
        ):
            raise LostError("what was reported is not there")
        if temporaries(self.written):
            return "while package or file were written"
        return "between package and file" if found["package"] != self.older["package"] else "making the graph"

    def result(self, out: str) -> dict[str, Any]:
        """Every byte."""
        return {**self._state(), "printed": out.replace(str(self.folder), "")}

    def _state(self) -> dict[str, str]:
        package = hashlib.sha256()
        for path in sorted(self.output.iterdir()):
            package.update(path.name.encode() + path.read_bytes())
        return {"package": package.hexdigest(), "archive": hashlib.sha256(self.archive.read_bytes()).hexdigest()}


class Batch:
    """`mlic-infer --input ROWS --output FILE --resume` over an older FILE."""

    OLDER = b"older results\n"

    def __init__(self, folder: Path, model: Path, rows: int = 4000) -> None:
        self.folder, self.model, self.rows = folder, model, rows
        self.written = folder / "out"
        self.output = self.written / "results.jsonl"
        self.partial = self.output.with_name(self.output.name + ".partial")
        self.journal = self.output.with_name(self.output.name + ".partial.journal")
        self.expected = b""
        self._marked = 0

    def command(self) -> list[str]:
        """The next attempt's."""
        given = ["--model", str(self.model), "--input", str(self.folder / "in" / "rows.csv")]
        resume = ["--resume"] if self.partial.exists() or self.journal.exists() else []
        return ["mlic-infer", *given, "--output", str(self.output), "--batch-size", "8", "--threads", "1", *resume]

    def begin(self) -> None:
        """From an older result file."""
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

    def check(self, out: str, error: str) -> str:
        """FILE is the older one until the newer one is whole; the journal's results are all in FILE.partial."""
        found = self.output.read_bytes()
        if found == self.expected:
            return "after the file got its name"
        if found != self.OLDER:
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
        """The whole lines of the journal behind its first."""
        for line in self.journal.read_bytes().split(b"\n")[1:-1]:
            yield json.loads(line)

    def result(self, out: str) -> dict[str, Any]:
        """Every byte, and that nothing lies beside it."""
        return {"results": self.output.read_bytes(), "files": sorted(p.name for p in self.output.parent.iterdir())}


def difference(first: dict[str, Any], second: dict[str, Any]) -> float:
    """The largest absolute difference of the tensors; everything else must be equal.

    Raises:
        LostError: it is not.
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
