"""Measures what each part of a model is worth: the same training without one part at a time, over several seeds.

    python benchmarks/ablation.py benchmarks/coco18-ablation.toml --runs runs/ablation --output FILE

A plan is a TOML file. `data` and `options` are arguments of mlic-train that all trainings share; `seeds` is a list.
Each training has a table [variants.NAME]. Its `add` is put behind the shared arguments and overrides them; `without`
names shared options to leave out, with their values, such as "--soft-labels --teacher-weight"; its `data`, `options` or
`seeds` replace the shared ones. Finished trainings are not repeated, and an interrupted one resumes.
Several processes can share a plan, each with variants of its own (--variant).
"""

import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from common import describe, markdown_table, output_option, read_json, write_json

from mlic_runtime.base.output_files import write_bytes
from mlic_runtime.cli.command import MlicCommand
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
    """A training of the plan, and its arguments without seed and run folder."""

    name: str
    arguments: tuple[str, ...]
    seeds: tuple[int, ...]

    def folder(self, runs: Path, seed: int) -> Path:
        """Return the run folder of a seed."""
        return runs / f"{re.sub(r'[^a-z0-9]+', '-', self.name.lower()).strip('-')}-{seed}"


def read_plan(file: Path) -> list[Variant]:
    """Return the variants of a plan, in its order.

    Raises:
        click.ClickException: it is not TOML, has no variant, or has an unknown key.
    """
    shared = read_toml(file)
    variants = shared.pop("variants", {})
    if not variants:
        raise click.ClickException(f"{file} has no variant; write a table [variants.NAME] for each")
    _refuse_unknown(file, "the top level", shared, _SHARED)
    for name, table in variants.items():
        _refuse_unknown(file, f"[variants.{name}]", table, (*_SHARED, "without", "add"))
    return [_variant(file, name, shared | table) for name, table in variants.items()]


def _refuse_unknown(file: Path, where: str, table: Mapping[str, Any], known: Iterable[str]) -> None:
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise click.ClickException(f"{file}: {where} has the unknown key {unknown[0]!r}; known: {', '.join(known)}")


def _variant(file: Path, name: str, table: Mapping[str, Any]) -> Variant:
    shared = [text for key in ("data", "options") for text in shlex.split(table.get(key, ""))]
    for option in shlex.split(table.get("without", "")):
        shorter = _leave_out(shared, option)
        if len(shorter) == len(shared):
            raise click.ClickException(f"{file}: [variants.{name}] is without {option}, which the plan does not give")
        shared = shorter
    return Variant(name, (*shared, *shlex.split(table.get("add", ""))), tuple(table.get("seeds", [0])))


def _leave_out(arguments: Sequence[str], option: str) -> list[str]:
    """Return the arguments without an option, all its values, and each time that it is given."""
    kept, dropping = [], False
    for text in arguments:
        if text.startswith("--"):
            dropping = text.partition("=")[0] == option
        if not dropping:
            kept.append(text)
    return kept


def train(variant: Variant, seed: int, folder: Path) -> None:
    """Run mlic-train to the end, from its last checkpoint if there is one, and keep what it prints.

    Raises:
        click.ClickException: it failed; its own message is on stderr.
    """
    arguments = [*variant.arguments, "--seed", str(seed), "--output", str(folder), "--format", "json"]
    arguments += ["--resume"] if (folder / "config.json").exists() else []
    click.echo(shlex.join(["mlic-train", *arguments]), err=True)
    ended = subprocess.run([sys.executable, "-m", "mlic_train", *arguments], stdout=subprocess.PIPE, check=False)
    if ended.returncode:
        raise click.ClickException(f"mlic-train ended with {ended.returncode}; the same command continues from here")
    write_bytes(folder / "metrics.json", ended.stdout)


def summary(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return mean and standard deviation over the seeds: every split's metrics and the lowest validation loss."""
    tables = [
        {**result["metrics"], "lowest loss": {"val": min(row["val_loss"] for row in result["history"])}}
        for result in results
    ]
    return {
        split: {name: _spread([table[split][name] for table in tables]) for name in tables[0][split]}
        for split in tables[0]
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    mean = {"mean": round(statistics.fmean(values), 5)}
    return mean | ({"sd": round(statistics.stdev(values), 5)} if len(values) > 1 else {})


def as_markdown(variants: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a line for each variant: samples F1 / mAP of every mode."""
    lines = []
    for name, variant in variants.items():
        splits = variant["summary"]
        cells = [_both(splits[split]) if split in splits else "" for _, split in _MEASURED]
        lines.append([name, str(len(variant["seeds"])), _number(splits["lowest loss"]["val"], 4), *cells])
    return markdown_table(["", "seeds", "val loss", *(title for title, _ in _MEASURED)], lines)


def _both(metrics: Mapping[str, Mapping[str, float]]) -> str:
    return f"{_number(metrics['samples_f1'], 3)} / {_number(metrics['map'], 3)}"


def _number(value: Mapping[str, float], digits: int) -> str:
    spread = f" ± {value['sd']:.{digits}f}" if "sd" in value else ""
    return f"{value['mean']:.{digits}f}{spread}"


@click.command(cls=MlicCommand)
@click.argument("plan", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--runs", type=click.Path(file_okay=False, path_type=Path), required=True, help="The folder of the run folders."
)
@click.option("--variant", "names", multiple=True, help="Train only this variant. Repeat.")
@output_option
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
    finished = {}
    for variant in variants:
        files = {seed: variant.folder(runs, seed) / "metrics.json" for seed in variant.seeds}
        if not all(file.exists() for file in files.values()):
            click.echo(f"{variant.name}: not all of its trainings have ended", err=True)
            continue
        results = {seed: read_json(file) for seed, file in files.items()}
        finished[variant.name] = {
            "arguments": shlex.join(variant.arguments),
            "summary": summary(list(results.values())),
            "seeds": {seed: {key: result[key] for key in ("metrics", "history")} for seed, result in results.items()},
        }
    click.echo(as_markdown(finished))
    facts = describe("trainings without one part at a time", ("torch", "timm", "tokenizers", "numpy"))
    write_json(output, facts | {"variants": finished})


if __name__ == "__main__":
    main()
