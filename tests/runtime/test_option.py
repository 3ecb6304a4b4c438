import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from mlic_runtime.base.option import check, checked, element_type, flag_of, nearest, option, options_of
from mlic_runtime.base.typed_json import TypedJsonError, build
from mlic_runtime.cli.fields import GroupedCommand, field_options, given_options


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Options of every kind."""

    kind: str = option("small", "A kind.", "Kinds", choices=("small", "large"), common=True)
    width: int = option(None, "A width.", "Sizes", low=1, high=9, follows="3 for small, else 9")
    share: float = option(0.5, "A share.", "Sizes", low=0, high=1, open_low=True)
    margins: tuple[float, float] | None = option(None, "Two margins.", "Sizes", low=0)
    files: tuple[Path, ...] = option((), "Files.", "Files", flag="file", path="file")
    folder: Path | None = option(None, "A folder.", "Files", path="new folder")  # noqa: RUF009 # it makes a field
    fast: bool = option(False, "Be fast.", "Kinds")
    tidy: bool = option(True, "Be tidy.", "Kinds")
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check(self, LookupError)


@click.command(cls=GroupedCommand)
@field_options(Sizes)
@click.pass_context
def command(ctx: click.Context, /, **_: object) -> None:
    """Take sizes."""
    click.echo(repr(given_options(ctx, Sizes)))


def given(*arguments: str) -> Any:
    result = CliRunner().invoke(command, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output.strip()


def test_a_field_without_an_option_is_none() -> None:
    assert "names" not in options_of(Sizes)
    assert list(options_of(Sizes))[:3] == ["kind", "width", "share"]
    assert (flag_of(Sizes, "files"), flag_of(Sizes, "margins")) == ("file", "margins")
    assert [element_type(Sizes, name) for name in ("margins", "files", "fast")] == [(float, 2), (Path, -1), (bool, 1)]


def test_what_is_given_on_the_command_line_has_the_fields_types(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.touch()
    assert given() == "{}"
    assert given("--margins", "1", "2.5", "--no-tidy", "--fast") == (
        "{'margins': (1.0, 2.5), 'fast': True, 'tidy': False}"
    )
    assert given("--file", str(file), "--width", "3") == f"{{'width': 3, 'files': ({file!r},)}}"


@pytest.mark.parametrize("arguments", [["--kind", "huge"], ["--width", "10"], ["--share", "0"], ["--file", "nowhere"]])
def test_the_command_line_refuses_what_the_field_refuses(arguments: list[str]) -> None:
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.stderr


def test_help_is_short_and_help_all_has_groups() -> None:
    short = CliRunner().invoke(command, ["--help"], terminal_width=100).output
    assert "--kind [small|large]  A kind.  [default: small]" in short
    assert "--width" not in short
    full = CliRunner().invoke(command, ["--help-all"], terminal_width=100).output
    headings = [line for line in full.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Kinds:", "Sizes:", "Files:", "Other options:"]
    assert "A width.  [default: 3 for small, else 9; from 1 to 9]" in full
    assert "A share.  [default: 0.5; above 0, up to 1]" in full
    assert "--margins NUMBER NUMBER" in full
    assert "--tidy / --no-tidy" in full
    assert "--no-fast" not in full


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "huge"}, "kind is 'huge'; choose one of: small, large"),
        ({"kind": 3}, "kind must be str, found 3"),
        ({"width": 10}, "width is 10; it must be from 1 to 9"),
        ({"width": True}, "width must be int, found True"),
        ({"share": 0}, "share is 0.0; it must be above 0, up to 1"),
        ({"margins": [1]}, "margins must be a list of 2, found [1]"),
        ({"margins": [1, -1]}, "margins is -1.0; it must be at least 0"),
        ({"files": 3}, "files must be a list, found 3"),
        ({"folder": 3}, "folder must be a path, found 3"),
        ({"fast": "no"}, "fast must be bool, found 'no'"),
        ({"names": "ab"}, "names must be a list, found 'ab'"),
    ],
)
def test_a_wrong_value_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(LookupError) as caught:
        Sizes(**values)
    assert caught.value.args == (message,)


def test_values_are_brought_to_the_fields_types() -> None:
    sizes = Sizes(share=1, files=["a"], folder="b", margins=[1, 2])  # type: ignore[arg-type] # as parsed JSON has them
    assert (sizes.share, sizes.files, sizes.folder, sizes.margins) == (1.0, (Path("a"),), Path("b"), (1.0, 2.0))
    assert isinstance(sizes.share, float)
    assert sizes.width is None
    assert Sizes(files="a").files == (Path("a"),)  # one of many, as a user gives it
    assert checked(Sizes, "width", 4) == 4


def test_an_unknown_name_is_told_the_nearest() -> None:
    assert nearest("widht", ["width", "share"]) == "did you mean 'width'?"
    assert nearest("x", ["width", "share"]) == "known: share, width"


def test_paths_pairs_and_free_parts_are_built_from_json() -> None:
    assert build(Path, "a/b", "x") == Path("a/b")
    assert build(tuple[int, str], [1, "a"], "x") == (1, "a")
    assert build(Mapping[str, Any] | None, {"a": [1, {}]}, "x") == {"a": [1, {}]}
    with pytest.raises(TypedJsonError, match=r"x must be a list of 2, found \[1\]"):
        build(tuple[int, str], [1], "x")
