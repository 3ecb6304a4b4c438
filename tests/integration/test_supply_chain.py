"""What the project depends on, and what docs/security says of it and of the tests. No network."""

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mlic_runtime import limits

ROOT = Path(__file__).parents[2]
SECURITY = ROOT / "docs" / "security"
SCRIPTS = ("audit", "minimum", "sbom")
RUNTIME = {"click", "numpy", "onnxruntime", "pillow", "tokenizers"}
ROOT_FILE, RUNTIME_FILE = "pyproject.toml", "mlic_runtime/pyproject.toml"


def requirements(file: str, *, extras: bool = True) -> list[Requirement]:
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    project = toml.loads((ROOT / file).read_text("utf-8"))["project"]
    groups = [project["dependencies"], *(project["optional-dependencies"].values() if extras else [])]
    return [Requirement(line) for group in groups for line in group]


def lower_bound(requirement: Requirement) -> str:
    bounds = [specifier.version for specifier in requirement.specifier if specifier.operator in (">=", "==")]
    assert len(bounds) == 1, f"{requirement} has no lower bound"
    return bounds[0]


def table(page: str) -> Iterator[list[str]]:
    """The cells of the rows of the first table of a page of docs/security."""
    section = (SECURITY / page).read_text("utf-8")
    lines = [line for line in section.splitlines() if line.startswith("|")]
    assert len(lines) > 2, f"no table in {page}"
    for line in lines[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


def for_old_python(requirement: Requirement) -> bool:
    return requirement.marker is not None and "python_version <" in str(requirement.marker)


@pytest.mark.parametrize("file", [ROOT_FILE, RUNTIME_FILE])
def test_every_dependency_has_a_lower_bound_and_no_upper_one(file: str) -> None:
    for requirement in requirements(file):
        assert lower_bound(requirement)
        assert [specifier.operator for specifier in requirement.specifier] in ([">="], ["=="]), requirement
        assert "==" not in str(requirement.specifier) or requirement.name == "mlic-runtime"


def test_the_runtime_needs_exactly_five_libraries() -> None:
    assert {requirement.name for requirement in requirements(RUNTIME_FILE, extras=False)} == RUNTIME


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.14"])
def test_every_python_has_one_bound_of_each_library(python: str) -> None:
    for file in (ROOT_FILE, RUNTIME_FILE):
        # Two extras may name the same library, with the same bound.
        wanted = [
            name
            for name, _ in {
                (requirement.name, lower_bound(requirement))
                for requirement in requirements(file)
                if requirement.marker is None or requirement.marker.evaluate({"python_version": python})
            }
        ]
        assert len(wanted) == len(set(wanted))
        assert {requirement.name for requirement in requirements(file)} - set(wanted) <= {"tomli"}


def test_both_distributions_have_the_same_bounds() -> None:
    def bounds(file: str) -> dict[tuple[str, Marker | None], str]:
        return {(item.name, item.marker): lower_bound(item) for item in requirements(file)}

    runtime, train = bounds(RUNTIME_FILE), bounds(ROOT_FILE)
    shared = runtime.keys() & train.keys()
    assert {name for name, _ in shared} == RUNTIME | {"fsspec", "pyyaml"}  # extras of the runtime
    assert {key: train[key] for key in shared} == {key: runtime[key] for key in shared}


def test_the_table_of_bounds_says_what_the_projects_say() -> None:
    found = {}
    for requirement in [*requirements(RUNTIME_FILE), *requirements(ROOT_FILE)]:
        name = canonicalize_name(requirement.name) + (", Python 3.10" if for_old_python(requirement) else "")
        found[name] = lower_bound(requirement)
    for name, bound, reason in table("dependencies.md"):
        assert found[name] == bound
        assert reason
    assert len({row[0] for row in table("dependencies.md")}) == len(list(table("dependencies.md")))


def test_a_bound_with_a_known_vulnerability_is_in_the_table() -> None:
    named = {row[0].partition(",")[0] for row in table("dependencies.md")}
    for file in (ROOT_FILE, RUNTIME_FILE):
        for line in (ROOT / file).read_text("utf-8").splitlines():
            requirement, _, comment = line.partition("#")
            if re.search(r"CVE-|GHSA-", comment) and (name := re.search(r'"([A-Za-z0-9-]+)', requirement)):
                assert name[1] in named, line


def test_every_promise_names_a_test_that_is_there() -> None:
    rows = list(table("attacks.md"))
    assert len(rows) >= 20
    for promise, attack, number, file in rows:
        assert attack
        assert number
        assert re.fullmatch(r"`[\w./]+`(, `[\w./]+`)*", file), file
        for name in re.findall(r"`([\w./]+)`", file):
            assert (ROOT / name).is_file(), f"{promise or attack}: there is no {name}"


def test_the_limits_are_those_of_the_code() -> None:
    rows = list(table("limits.md"))
    assert len(rows) >= 10
    assert all(what for _, _, what in rows)
    promised = [(name.strip("`"), int(limit.replace(",", ""))) for name, limit, _ in rows]
    assert promised == [(name, value) for name, value in vars(limits).items() if name.isupper()]


def test_no_limit_of_the_runtime_stands_in_another_module() -> None:
    runtime = ROOT / "mlic_runtime"
    found = {
        path.relative_to(runtime).as_posix(): re.findall(r"^_?MAX_\w+(?= = )", path.read_text("utf-8"), re.MULTILINE)
        for path in runtime.rglob("*.py")
        if path.name != "limits.py"
    }
    assert {name: names for name, names in found.items() if names} == {
        "package/graph_safety.py": ["_MAX_FIELD_NUMBER"],  # of the file format
        "predict/prediction.py": ["MAX_ROWS", "MAX_CHARACTERS"],  # how much of a prediction a notebook shows
    }


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_scripts_are_posix_shell_and_executable(name: str) -> None:
    script = ROOT / "scripts" / name
    assert os.access(script, os.X_OK)
    assert script.read_text("utf-8").startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", str(script)], check=True, timeout=60)


def test_the_sbom_needs_a_file_and_says_so() -> None:
    script = str(ROOT / "scripts" / "sbom")
    shown = subprocess.run([script, "--help"], capture_output=True, text=True, check=False, timeout=60)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "scripts/sbom FILE" in shown.stdout
    refused = subprocess.run([script], capture_output=True, text=True, check=False, timeout=60)
    assert (refused.returncode, refused.stdout) == (2, shown.stdout)


def test_training_too_turns_the_reports_of_onnx_runtime_off() -> None:
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    code = "import os, sys, mlic_train; print(os.environ['ORT_DISABLE_TELEMETRY'], 'onnxruntime' in sys.modules)"
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, env=kept, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "1 False\n"
