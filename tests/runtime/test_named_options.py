"""What `mlic-infer` says may name only options that it has, or another command with the option."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import mlic_runtime
from mlic_runtime.cli.infer import infer

ROOT = Path(mlic_runtime.__file__).parent
# Rooms and modules that only other commands use.
ELSEWHERE = ("serve/", "bench/", "cli/serve.py", "cli/bench.py", "cli/bench_tables.py", "cli/fields.py")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
# An option after the name of its command, such as "mlic-bench --choose", or of a program that is not ours.
OF_ANOTHER = re.compile(
    r"(?:mlic-(?!infer)[a-z]+|gunicorn: without|pip install)(?: --[a-z][a-z0-9-]*(?: [A-Z][A-Za-z.]*)?)+"
)


def texts(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the text literals of a module, with their lines; not its docstrings."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in statements:
            yield node.lineno, node.value


def foreign(text: str, own: frozenset[str]) -> set[str]:
    """Return the options that a text names and that are not among `own`, nor those of a command that it names."""
    return {option for option in OPTION.findall(OF_ANOTHER.sub("", text)) if option not in own}


@pytest.fixture(scope="module")
def own() -> frozenset[str]:
    context = click.Context(infer, info_name="mlic-infer")
    named = [
        name
        for each in infer.get_params(context)
        if isinstance(each, click.Option)
        for name in (*each.opts, *each.secondary_opts)
    ]
    return frozenset(named)


def test_no_message_names_an_option_that_the_command_lacks(own: frozenset[str]) -> None:
    files = [file for file in ROOT.rglob("*.py") if not file.relative_to(ROOT).as_posix().startswith(ELSEWHERE)]
    found = [
        f"{file.relative_to(ROOT)}:{line}: {', '.join(sorted(options))}"
        for file in sorted(files)
        for line, text in texts(file)
        if (options := foreign(text, own))
    ]
    assert len(files) > 100
    assert found == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("say --data-format csv", {"--data-format"}),
        ("name it with --image-column or --labels-column", {"--labels-column"}),
        ("chosen by mlic-bench --choose", set()),
        ("train with mlic-train --data DATA --also EXPORT.json", set()),
        ("go on with mlic-infer --data DATA", {"--data"}),
        ("gunicorn: without --preload", set()),
        ("a dash -- and a--b are no options", set()),
    ],
)
def test_foreign_options_are_found(own: frozenset[str], text: str, expected: set[str]) -> None:
    assert foreign(text, own) == expected
