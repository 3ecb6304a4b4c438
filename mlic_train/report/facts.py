"""What a run is: its model, its size, how it was trained, and on what."""

import dataclasses
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from mlic_train.config import ModelConfig, TrainConfig, resolve_configs
from mlic_train.runs.checkpoint import BEST_NAME, LAST_NAME, RunConfig, Trained, load_checkpoint

from .html import table

_LARGE = ("labels", "text_config")  # they have a place of their own
_NOT_CHOSEN = ("data_fingerprint", "soft_labels_fingerprint", "data_note")  # about the data, or follow from the rest
_AT_THE_TOP = ("seed", "data_fingerprint")
Fact = tuple[str, object]


def run_name(folder: Path) -> str:
    """The folder's own name, as text that can be encoded: not where it lies on this machine."""
    return printable(folder.resolve().name)


def printable(name: str) -> str:
    """A file name as text for page and terminal; control characters and bytes that are not UTF-8 are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


def history(trained: Trained) -> list[dict[str, float]]:
    """One row per finished epoch; a released checkpoint knows them up to its best epoch only."""
    last = trained.folder / LAST_NAME
    return load_checkpoint(last).state.history if last.is_file() else trained.state.history


def model_facts(trained: Trained) -> list[Fact]:
    """Name, size and training of a model."""
    config, model = trained.config.model, trained.model
    sizes = {part: _parameters(module) for part, module in (("all", model), ("backbone", model.backbone))}
    facts: list[Fact] = [
        ("model", config.name),
        ("labels", f"{config.num_labels}: {', '.join(config.labels)}"),
        ("parameters", f"{sizes['all']:,}, of which {sizes['backbone']:,} are {config.backbone}"),
        ("checkpoint", f"{BEST_NAME}, {(trained.folder / BEST_NAME).stat().st_size / 1e6:.1f} MB"),
        ("picture", f"{config.image_size} x {config.image_size}, {config.resize}, {config.interpolation}"),
    ]
    if config.reads_captions:
        facts.append(("caption", f"at most {config.max_length} tokens, vocabulary of {config.vocab_size}"))
    rows = history(trained)
    if rows:
        minutes = sum(row.get("seconds", 0.0) for row in rows) / 60
        facts.append(("training", f"{len(rows)} epochs, {minutes:.1f} minutes, best epoch {trained.state.epoch}"))
    provenance = trained.config.provenance
    facts += [(name.replace("_", " "), provenance[name]) for name in _AT_THE_TOP if name in provenance]
    return facts


def changed_hyperparameters(config: RunConfig) -> list[tuple[str, object, object]]:
    """(name, value, default) of everything that is not as it comes."""
    usual = resolve_configs(ModelConfig(name=config.model.name), TrainConfig())
    return [
        (name, shown(value), shown(getattr(defaults, name)))
        for part, defaults in zip((config.model, config.train), usual, strict=True)
        for name, value in vars(part).items()
        if name not in _LARGE and value != getattr(defaults, name)
    ]


def hyperparameters(config: RunConfig) -> dict[str, object]:
    """All of them by name, and where weights and soft labels came from."""
    values: dict[str, Any] = {**dataclasses.asdict(config.model), **dataclasses.asdict(config.train)}
    result = {name: shown(value) for name, value in values.items() if name not in _LARGE}
    known = {*result, *_NOT_CHOSEN}
    return {**result, **{name: value for name, value in config.provenance.items() if name not in known}}


def facts_tables(trained: Trained) -> str:
    """What stands at the top of a report: the model, and folded away its hyperparameters and provenance."""
    changed = changed_hyperparameters(trained.config)
    provenance = [
        (name.replace("_", " "), value) for name, value in trained.config.provenance.items() if name not in _AT_THE_TOP
    ]
    parts = [_facts_list(model_facts(trained))]
    if changed:
        title = f"{len(changed)} hyperparameters that are not the defaults"
        parts.append(_folded(title, table(("name", "value", "default"), changed)))
    if provenance:
        parts.append(_folded("Provenance and versions", _facts_list(provenance)))
    return "".join(parts)


def _facts_list(facts: Iterable[Fact]) -> str:
    """A table of text: unlike numbers, it is aligned to the left."""
    rows = (
        f'<tr><td>{escape(name)}</td><td style="text-align: left">{escape(printable(str(value)))}</td></tr>\n'
        for name, value in facts
    )
    return f"<table><tbody>{''.join(rows)}</tbody></table>\n"


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary>\n{content}</details>\n"


def shown(value: object) -> object:
    """A hyperparameter as text: a small learning rate keeps its digits, an unset value is "none"."""
    if isinstance(value, bool) or value is None:
        return "none" if value is None else str(value).lower()
    if isinstance(value, (list, tuple)):
        return ", ".join(str(shown(part)) for part in value)
    return f"{value:g}" if isinstance(value, float) else value


def _parameters(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
