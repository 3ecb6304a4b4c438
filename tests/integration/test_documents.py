"""What the documents say holds: links, commands, code, pictures, paths, and how long they are."""

import importlib
import io
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mlic_runtime.cli.bench import bench
from mlic_runtime.cli.infer import infer
from mlic_runtime.cli.serve import serve
from mlic_train.cli.export import export
from mlic_train.cli.report import report
from mlic_train.cli.shards import shards
from mlic_train.cli.sign import main as sign
from mlic_train.cli.sweep import sweep
from mlic_train.cli.train import train

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "benchmarks", "deploy", "examples", "fuzz")
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        ROOT / "mlic_runtime" / "README.md",
        *(
            path
            for folder in FOLDERS
            for path in (ROOT / folder).rglob("*.md")
            if not {"node_modules", "corpus"} & set(path.parts)
        ),
    ]
)
GENERATED = {"docs/reference.md", "docs/train/options.md"}  # from docstrings and fields, which have rules of their own
COMMANDS: dict[str, click.Command] = {
    "mlic-bench": bench,
    "mlic-export": export,
    "mlic-infer": infer,
    "mlic-report": report,
    "mlic-serve": serve,
    "mlic-shards": shards,
    "mlic-sign": sign,
    "mlic-sweep": sweep,
    "mlic-train": train,
}
PROGRAMS = {
    "curl",
    "export",
    "npm",
    "tar",
    "openssl",
    "sudo",
    "tee",
    "pip",
    "prlimit",
    "pytest",
    "python",
    "python3",
    "ruff",
}
PROGRAMS |= {
    "torchrun",
    "unshare",
    ".",
    "cd",
    "podman",
    "systemctl",
    "uv",
    "bwrap",
    "node",
    "lint-imports",
    "mypy",
    "chmod",
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def fences(text: str) -> list[tuple[str, str]]:
    """The language and the content of each fenced block."""
    return re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)


def without_fences(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """What one can link to in a page, by GitHub's rule."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.*)$", without_fences(text), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).strip().replace(" ", "-")
        found.add(slug if slug not in found else f"{slug}-1")
    return found


def command_lines(text: str) -> Iterator[str]:
    """The command lines of a page: blocks without a language, where those with "$ " have output too, and `mlic-...`."""
    for language, content in fences(text):
        if language not in ("", "sh", "bash"):
            continue
        lines = content.replace("\\\n", " ").splitlines()
        if any(line.startswith("$ ") for line in lines):
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        yield from (line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
    for code in re.findall(r"`((?:mlic-\w+|python|scripts/[^`\s]+) [^`\n]+)`", without_fences(text)):
        yield code.replace("\\|", "|")


def words_of(line: str) -> Iterator[list[str]]:
    """The words of each command of a line: what stands between && and |, without redirections."""
    words: list[str] = []
    redirected = False
    for word in [*shlex.split(line, comments=True), "&&"]:
        if redirected:
            redirected = False
        elif word in ("<", ">", ">>", "2>"):
            redirected = True
        elif word in ("&&", "|", ";", "||"):
            if words:
                yield words
            words = []
        else:
            words.append(word)


def check_command(name: str, arguments: list[str], command: click.Command | None = None) -> None:
    """Parse arguments as the command would, but let paths be that are not there.

    Raises:
        click.UsageError: an unknown option, a choice or number out of range, or too many arguments.
    """
    command = command or COMMANDS[name]
    context = click.Context(command, info_name=name)
    if isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        below = command.get_command(context, arguments[0])
        if below is None:
            raise click.UsageError(f"{name} has no command {arguments[0]!r}")
        check_command(f"{name} {arguments[0]}", arguments[1:], below)
        return
    if name == "mlic-sweep" and "--" in arguments:
        place = arguments.index("--")
        check_command("mlic-train", arguments[place + 1 :])
        arguments = arguments[:place]
    takes = {option: each for each in command.params if isinstance(each, click.Option) for option in each.opts}
    last = takes.get(arguments[-1]) if arguments else None
    if last is not None and not last.is_flag:  # as `mlic-infer --input` in a text, which is about the option
        arguments = arguments[:-1]
    given, rest, order = command.make_parser(context).parse_args(list(arguments))
    for parameter in order:
        value = given.get(parameter.name or "")
        if isinstance(parameter, click.Option) and value is not None and not isinstance(parameter.type, click.Path):
            parameter.type_cast_value(context, value)
    if rest and not any(isinstance(parameter, click.Argument) for parameter in command.params):
        raise click.UsageError(f"{name} takes no arguments, found {rest}")


def check_line(words: list[str]) -> None:
    """Check one command of a document.

    Raises:
        click.UsageError: a command that does not take these options.
        AssertionError: a program or a script that is not known.
    """
    program, *arguments = words
    if program.startswith(("~", "/", ".venv", "$")):  # a program somewhere else
        program = program.rpartition("/")[2]
    if program == "torchrun" and "-m" in arguments:
        check_command("mlic-train", arguments[arguments.index("mlic_train") + 1 :])
    elif program in COMMANDS:
        check_command(program, arguments)
    elif program.startswith("python") and arguments[0].endswith(".py"):
        script = ROOT / arguments[0]
        assert script.is_file(), f"there is no {arguments[0]}"
        code = script.read_text("utf-8") + (ROOT / "benchmarks" / "common.py").read_text("utf-8")
        for argument in arguments[1:]:
            if argument == "--":
                break
            if argument.startswith("--"):
                pattern = rf"[\"/]{re.escape(argument)}[\"/]"  # as in click.option("--plot/--no-plot")
                assert re.search(pattern, code), f"{arguments[0]} has no {argument}"
    elif "/" in program:
        assert (ROOT / program).exists(), f"there is no {program}"
    elif "=" not in program:
        assert program in PROGRAMS or program.startswith("python3."), f"what is {program!r}?"


def lines_of(path: Path) -> list[str]:
    return list(command_lines(path.read_text("utf-8")))


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_link_leads_somewhere(path: Path) -> None:
    text = without_fences(path.read_text("utf-8"))
    wrong = []
    plain = re.sub(r"`[^`\n]*`", "", text)
    for to in [*re.findall(r"\]\(([^)\s]+)\)", plain), *re.findall(r'<img src="([^"]+)"', plain)]:
        if "://" in to or to.startswith("mailto:"):
            continue
        file, _, anchor = to.partition("#")
        target = path.parent / file if file else path
        if not target.exists() or (anchor and anchor not in anchors(target.read_text("utf-8"))):
            wrong.append(to)
    assert wrong == []


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if lines_of(path)], ids=name_of)
def test_every_command_line_is_one_that_the_commands_take(path: Path) -> None:
    wrong = []
    for line in lines_of(path):
        try:
            for words in words_of(line):
                check_line(words)
        except (click.UsageError, AssertionError, ValueError) as error:
            wrong.append(f"{line}: {error}")
    assert wrong == []


@pytest.mark.parametrize(
    "line",
    [
        "mlic-train --date my-data",
        "mlic-train --preset better",
        "mlic-train --epochs -1",
        "mlic-report runs --data my-data",
        "mlic-sweep --data my-data -- --epoch 3",
        "mlic-sign sign package --keys key.pem",
        "mlic-bench exported/hybrid",
        "python benchmarks/none.py",
        "python benchmarks/batch.py --row 3",
        "scripts/none",
        "mlic-trian --data my-data",
    ],
)
def test_a_wrong_command_line_is_found(line: str) -> None:
    (words,) = words_of(line)
    with pytest.raises((click.UsageError, AssertionError)):
        check_line(words)


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if name_of(path) not in GENERATED], ids=name_of)
def test_no_paragraph_is_longer_than_80_words(path: Path) -> None:
    paragraphs = re.split(r"\n\s*\n", without_fences(path.read_text("utf-8")))
    items = [item for each in paragraphs for item in re.split(r"\n(?=\s*(?:[-*]|\d+\.) )", each)]
    long = [item for item in items if not item.lstrip().startswith("|") and len(item.split()) > 80]
    assert long == []


def test_readme_and_contributing_stay_short() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert len(readme.splitlines()) <= 120
    assert len(readme.split()) <= 800
    assert len((ROOT / "CONTRIBUTING.md").read_text("utf-8").splitlines()) <= 100


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_path_of_the_repository_is_there(path: Path) -> None:
    """Paths in backticks, from the root on; those with capitals, * or ... stand for others."""
    code = re.findall(r"`([^`\n]+)`", without_fences(path.read_text("utf-8")))
    tops = ("mlic_runtime", "mlic_train", "tests", "benchmarks", "scripts", "docs", "examples", "exported", "deploy")
    named = [text for text in code if re.fullmatch(rf"(?:{'|'.join(tops)})/[\w./-]+", text)]
    named = [text for text in named if not re.search(r"[A-Z]{3}", text.replace("README.md", ""))]
    assert [text for text in named if not (ROOT / text).exists()] == []


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "docs" / "run" / "python.md"], ids=name_of)
def test_the_python_code_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    blocks = [content for language, content in fences(path.read_text("utf-8")) if language == "python"]
    assert blocks
    with redirect_stdout(io.StringIO()) as shown:
        for block in blocks:
            exec(compile(block, path.name, "exec"), {"__name__": "document"})
    assert "('cat',)" in shown.getvalue()


def test_what_the_start_page_says_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command lines in their order, on fewer rows and with a model that trains in a second."""
    monkeypatch.chdir(tmp_path)
    small = ["--preset", "none", "--backbone", "conv3", "--image-size", "32", "--width", "16", "--epochs", "1"]
    ran = []
    for line in lines_of(ROOT / "docs" / "start.md"):
        for program, *arguments in words_of(line):
            if program in (".", "pip", "python3"):
                continue
            ran.append(program)
            if program == "python":
                script = [sys.executable, str(ROOT / arguments[0]), *arguments[1:], "--rows", "24"]
                subprocess.run(script, check=True, timeout=120)
                continue
            trains = program == "mlic-train" and "--check" not in arguments
            done = CliRunner().invoke(COMMANDS[program], [*arguments, *(small if trains else [])])
            assert done.exit_code == 0, (line, done.output)
    assert ran == ["python", "mlic-train", "mlic-train", "mlic-export", "mlic-infer", "mlic-infer", "mlic-infer"]
    assert len((tmp_path / "results.jsonl").read_text("utf-8").splitlines()) == 24
    assert (tmp_path / "explained.html").stat().st_size > 10_000


@pytest.mark.parametrize("name", ["house", "model", "accuracy"])
def test_the_drawings_are_those_of_their_scripts(name: str) -> None:
    """Make them anew with `python scripts/pictures/NAME.py > docs/pictures/NAME.svg`."""
    line = [sys.executable, str(ROOT / "scripts" / "pictures" / f"{name}.py")]
    drawn = subprocess.run(line, capture_output=True, check=True, timeout=60).stdout
    assert drawn == (ROOT / "docs" / "pictures" / f"{name}.svg").read_bytes()


def test_every_picture_says_how_it_is_made() -> None:
    """By a script in scripts/pictures that names it, or by a command of the release."""
    pictures = {path.stem for path in (ROOT / "docs" / "pictures").iterdir()}
    scripts = list((ROOT / "scripts" / "pictures").glob("*.py"))
    made = {path.stem for path in scripts}
    made |= {name for path in scripts for name in re.findall(r'"([\w-]+)(?:\.png)?"', path.read_text("utf-8"))}
    made |= set(re.findall(r"docs/pictures/([\w-]+)\.", (ROOT / "docs" / "models" / "releasing.md").read_text("utf-8")))
    assert pictures - made == set()


def test_the_reference_is_that_of_the_docstrings() -> None:
    """Make it anew with `python scripts/reference.py > docs/reference.md`."""
    line = [sys.executable, str(ROOT / "scripts" / "reference.py")]
    written = subprocess.run(line, capture_output=True, check=True, timeout=60).stdout
    assert written.decode("utf-8") == (ROOT / "docs" / "reference.md").read_text("utf-8")


@pytest.mark.parametrize("package", ["mlic_runtime", "mlic_train"])
def test_the_reference_has_every_public_name(package: str) -> None:
    headings = re.findall(r"^### (\w+)$", (ROOT / "docs" / "reference.md").read_text("utf-8"), re.MULTILINE)
    assert set(importlib.import_module(package).__all__) <= set(headings)


def test_every_decision_has_its_parts_and_a_line_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    pages = sorted(path.name for path in folder.glob("[0-9]*.md"))
    index = (folder / "README.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| \d{3} \| \[([^\]]+)\]\(([^)]+)\) \| \d{4}-\d\d-\d\d \|$", index, re.MULTILINE))
    assert sorted(rows.values()) == pages
    assert [int(name[:3]) for name in pages] == list(range(1, len(pages) + 1))
    for title, name in rows.items():
        text = (folder / name).read_text("utf-8")
        assert text.startswith(f"# {name[:3]}. {title}\n\nDecided 2"), name
        assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Evidence"], name


def test_the_site_has_every_guide() -> None:
    """The pages of mkdocs.yml are there, and no guide is missing among them."""
    named = re.findall(r"[\w./-]+\.md(?=$)", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    assert [name for name in named if not (ROOT / name).is_file()] == []
    guides = {name_of(path) for path in (ROOT / "docs").rglob("*.md") if path.parent.name != "decisions"}
    assert guides - set(named) == {"docs/README.md"}
