"""What each part of a model is worth: the same training with one part left out at a time, over several seeds.

A plan is a TOML file: `data` and `options`, the arguments of mlic-train that trainings share, `seeds`, and a table
[variants.NAME] for each: its `add` has arguments that come last and so win; `data`, `options` and `seeds` stand in the
place of the shared ones. Trainings that have ended are not repeated, and an interrupted one goes on. Several processes
can work on one plan, each on variants of its own (--variant).

Usage: python benchmarks/ablation.py PLAN --runs FOLDER [--variant NAME ...] [--output FILE]
"""

import json
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from mlic_runtime.cli.command import MlicCommand
from mlic_train.base.files import write_bytes
from mlic_train.config import read_toml

_SHARED = ("data", "options", "seeds")
_MEASURED = (
    ("val", "val"),
    ("test", "test"),
    ("test, picture only", "test-picture-only"),
    ("test, caption only", "test-caption-only"),
)


@dataclass(frozen=True)
class Variant:
    """A training of the plan: its arguments but for seed and run folder."""

    name: str
    arguments: tuple[str, ...]
    seeds: tuple[int, ...]

    def folder(self, runs: Path, seed: int) -> Path:
        """The run folder of a seed."""
        return runs / f"{re.sub(r'[^a-z0-9]+', '-', self.name.lower()).strip('-')}-{seed}"


def read_plan(file: Path) -> list[Variant]:
    """The variants of a plan, in its order.

    Raises:
        click.ClickException: no variant, or a key that nothing reads.
        ConfigError: not TOML.
    """
    shared = read_toml(file)
    variants = shared.pop("variants", {})
    if not variants:
        raise click.ClickException(f"{file} has no variant; write a table [variants.NAME] for each")
    _refuse_unknown(file, "the top level", shared, _SHARED)
    for name, table in variants.items():
        _refuse_unknown(file, f"[variants.{name}]", table, (*_SHARED, "add"))
    return [_variant(name, shared | table) for name, table in variants.items()]


def _refuse_unknown(file: Path, where: str, table: Mapping[str, Any], known: Iterable[str]) -> None:
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise click.ClickException(f"{file}: {where} has the unknown key {unknown[0]!r}; known: {', '.join(known)}")


def _variant(name: str, table: Mapping[str, Any]) -> Variant:
    arguments = [text for key in ("data", "options", "add") for text in shlex.split(table.get(key, ""))]
    return Variant(name, tuple(arguments), tuple(table.get("seeds", [0])))


def train(variant: Variant, seed: int, folder: Path) -> None:
    """Run mlic-train to the end, from the last checkpoint where there is one, and keep what it prints.

    Raises:
        click.ClickException: it failed; its own message is on stderr.
    """
    arguments = [*variant.arguments, "--seed", str(seed), "--output", str(folder), "--format", "json"]
    arguments += ["--resume"] if (folder / "config.json").exists() else []
    click.echo(shlex.join(["mlic-train", *arguments]), err=True)
    ended = subprocess.run([sys.executable, "-m", "mlic_train", *arguments], stdout=subprocess.PIPE, check=False)
    if ended.returncode:
        raise click.ClickException(f"mlic-train ended with {ended.returncode}; the same command goes on from here")
    write_bytes(folder / "metrics.json", ended.stdout)


def summary(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds, of every split's metrics and of the lowest validation loss."""
    tables = [
        {**result["metrics"], "lowest loss": {"val": min(row["val_loss"] for row in result["history"])}}
        for result in results
    ]
    return {
        split: {name: _spread([table[split][name] for table in tables]) for name in tables[0][split]}
        for split in tables[0]
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    found = {"mean": round(statistics.fmean(values), 5)}
    return found | ({"sd": round(statistics.stdev(values), 5)} if len(values) > 1 else {})


def as_markdown(variants: Mapping[str, Mapping[str, Any]]) -> str:
    """A line per variant: samples F1 / mAP of every mode."""
    lines = [["", "seeds", "val loss", *(title for title, _ in _MEASURED)], ["---"] * (3 + len(_MEASURED))]
    for name, variant in variants.items():
        found = variant["summary"]
        cells = [_both(found[split]) if split in found else "" for _, split in _MEASURED]
        lines.append([name, str(len(variant["seeds"])), _number(found["lowest loss"]["val"], 4), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _both(metrics: Mapping[str, Mapping[str, float]]) -> str:
    return f"{_number(metrics['samples_f1'], 3)} / {_number(metrics['map'], 3)}"


def _number(value: Mapping[str, float], digits: int) -> str:
    spread = f" ± {value['sd']:.{digits}f}" if "sd" in value else ""
    return f"{value['mean']:.{digits}f}{spread}"


@click.command(cls=MlicCommand)
@click.argument("plan", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--runs", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where run folders go.")
@click.option("--variant", "names", multiple=True, help="Train only this one; may be given several times.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the results as JSON.")
def main(plan: Path, runs: Path, names: tuple[str, ...], output: Path | None) -> None:
    """Train the variants of a plan and compare those whose trainings have all ended."""
    variants = read_plan(plan)
    unknown = sorted(set(names) - {variant.name for variant in variants})
    if unknown:
        known = ", ".join(variant.name for variant in variants)
        raise click.ClickException(f"{plan} has no variant {unknown[0]!r}; it has: {known}")
    for variant in variants:
        for seed in variant.seeds if not names or variant.name in names else ():
            if not (variant.folder(runs, seed) / "metrics.json").exists():
                train(variant, seed, variant.folder(runs, seed))
    found = {}
    for variant in variants:
        files = {seed: variant.folder(runs, seed) / "metrics.json" for seed in variant.seeds}
        if not all(file.exists() for file in files.values()):
            click.echo(f"{variant.name}: not all of its trainings have ended", err=True)
            continue
        results = {seed: json.loads(file.read_text(encoding="utf-8")) for seed, file in files.items()}
        found[variant.name] = {
            "arguments": shlex.join(variant.arguments),
            "summary": summary(list(results.values())),
            "seeds": {seed: {key: result[key] for key in ("metrics", "history")} for seed, result in results.items()},
        }
    click.echo(as_markdown(found))
    if output is not None:
        libraries = ("torch", "timm", "tokenizers", "numpy")
        text = json.dumps({"versions": {name: version(name) for name in libraries}, "variants": found}, indent=2)
        write_bytes(output, (text + "\n").encode())


if __name__ == "__main__":
    main()
