"""What errors say: an option that a message names is one that the command has which prints the message."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mlic_runtime.cli.bench import bench
from mlic_runtime.cli.infer import infer
from mlic_runtime.cli.serve import serve
from mlic_train.cli.export import export
from mlic_train.cli.report import report
from mlic_train.cli.shards import shards
from mlic_train.cli.sign import sign
from mlic_train.cli.sweep import sweep
from mlic_train.cli.train import train

ROOT = Path(__file__).parents[2]
# "mlic-shards --index" names its command itself, and an option of another program is none of ours.
OPTION = re.compile(r"(?<![\w-])(?:(mlic-\w+|gunicorn: without) )?(--[a-z][a-z-]*[a-z])")

READ_DATA: list[click.Command] = [train, export, shards, sweep, *report.commands.values()]
OF_TRAINING: list[click.Command] = [train]  # `mlic-sweep` passes on what stands behind --
# The commands that can print what a room raises; of several rooms the longest path counts.
COMMANDS: dict[str, list[click.Command]] = {
    "mlic_train/data": READ_DATA,
    "mlic_train/config": OF_TRAINING,
    "mlic_train/training": OF_TRAINING,
    "mlic_train/models": OF_TRAINING,
    "mlic_train/batches": OF_TRAINING,  # with processes that read, and only training has them
    "mlic_train/captions": OF_TRAINING,
    "mlic_train/runs/folder.py": OF_TRAINING,
    "mlic_train/exporting": [export],
    "mlic_train/exporting/signing.py": [sign],
    "mlic_train/sweep": [sweep],
    "mlic_runtime/batch": [infer],
    "mlic_runtime/ray": [infer],
    "mlic_runtime/cli": [infer],
    "mlic_runtime/cli/serve.py": [serve],
    "mlic_runtime/serve": [serve],
    "mlic_runtime/picture": [infer, bench, *READ_DATA],
    "mlic_runtime/caption": [infer, bench, *READ_DATA],
    "mlic_runtime/predict": [infer, bench],
    "mlic_runtime/package": [infer, bench, export],
    "mlic_runtime/graph": [infer, bench],
    "mlic_runtime/bench": [bench],
}


def named_options(module: Path) -> Iterator[str]:
    """Yield the options in the texts of what a module raises."""
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Raise):
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    text = re.sub("pip install [^;:]*", "", part.value)
                    yield from (option for command, option in OPTION.findall(text) if not command)


def options_of(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("room", COMMANDS)
def test_a_message_names_options_that_its_command_has(room: str) -> None:
    path = ROOT / room
    modules = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    others = [ROOT / other for other in COMMANDS if other != room and other.startswith(f"{room}/")]
    for module in modules:
        if not any(module.is_relative_to(other) for other in others):
            for option in named_options(module):
                for command in COMMANDS[room]:
                    assert option in options_of(command), f"{module}: {command.name} has no {option}"


@pytest.mark.parametrize("module", sorted((ROOT / "mlic_runtime" / "picture").glob("*.py")), ids=lambda path: path.name)
def test_a_picture_that_is_refused_names_no_argument(module: Path) -> None:
    """Most commands cannot change a limit; `mlic-infer` has an option, and Python an argument of its own."""
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Raise):
            texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            assert not [text for text in texts if isinstance(text, str) and "max_" in text]
