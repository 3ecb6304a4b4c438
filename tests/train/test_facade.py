import ast
import functools
import importlib
import inspect
import pkgutil
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import mlic_runtime
import mlic_train


def test_all_is_sorted_and_every_name_resolves() -> None:
    assert mlic_train.__all__ == sorted(mlic_train.__all__)
    for name in mlic_train.__all__:
        assert getattr(mlic_train, name) is not None


def test_no_public_name_is_a_module_too() -> None:
    modules = {path.stem for path in Path(mlic_train.__file__).parent.iterdir()}
    assert not modules & set(mlic_train.__all__)


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, mlic_train; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_picture_and_caption_preprocessing_exists_once() -> None:
    """Training decodes, resizes and tokenises through the runtime only; what a report shows is no model's input."""
    package = Path(mlic_train.__file__).parent
    compared = package / "data" / "picture_info.py"  # tiny copies, to compare pictures by
    for path in set(package.rglob("*.py")) - set((package / "report").iterdir()) - {compared}:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        called = {function.attr for function in calls if isinstance(function, ast.Attribute)}
        assert not called & {"resize", "thumbnail", "encode_batch"}, path


def functions_of(public: object) -> Iterator[Callable[..., Any]]:
    """A function; of a class its constructor, public methods and properties."""
    members = vars(public) if inspect.isclass(public) else {"": public}
    for name, member in members.items():
        if name == "__init__" or not name.startswith("_"):
            function = getattr(member, "fget", getattr(member, "__func__", member))
            function = member.func if isinstance(member, functools.cached_property) else function
            if inspect.isfunction(function):
                yield function


def types_in(hint: Any) -> Iterator[type]:
    """The classes that an annotation is made of."""
    if inspect.isclass(hint):
        yield hint
    for argument in typing.get_args(hint):
        for part in argument if isinstance(argument, list) else [argument]:
            yield from types_in(part)


def signature_types(function: Callable[..., Any]) -> Iterator[type]:
    """The classes in a signature; names that only a type checker imports are looked up in the house."""
    try:
        hints = typing.get_type_hints(function)
    except NameError:
        hints = typing.get_type_hints(function, localns={**classes_in_the_house(), **function.__globals__})
    for hint in hints.values():
        yield from types_in(hint)


@functools.cache
def classes_in_the_house() -> dict[str, object]:
    names: dict[str, object] = {}
    for package in (mlic_train, mlic_runtime):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                names |= vars(importlib.import_module(found.name))
    return names


@pytest.mark.parametrize("package", [mlic_runtime, mlic_train])
def test_every_type_in_a_public_signature_is_public_too(package: ModuleType) -> None:
    known = {getattr(each, name) for each in (mlic_runtime, mlic_train) for name in each.__all__}
    for name in package.__all__:
        for function in functions_of(getattr(package, name)):
            for kind in signature_types(function):
                ours = kind.__module__.startswith(("mlic_runtime.", "mlic_train."))
                assert not ours or kind in known, f"{name}.{function.__name__}: {kind.__name__} of {kind.__module__}"
