"""Writes docs/reference.md from the names that both packages export: signatures and docstrings. It imports no torch.

python scripts/reference.py > docs/reference.md
"""

import ast
import importlib
import inspect
import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
_PACKAGES = ("mlic_runtime", "mlic_train")
_SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Note", "Example", "Examples")
_HEAD = """# Reference

`python scripts/reference.py` writes this page from the docstrings of what `mlic_runtime` and `mlic_train` export; a
test compares them. Shapes in letters: B batch, T tokens, L labels, H W height width, C channels.
"""

Definition = ast.ClassDef | ast.FunctionDef | ast.AnnAssign | ast.Assign


def find(module: str, name: str) -> Definition:
    """Return the definition of a name, also where its module only imports it from another one."""
    path = ROOT / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    imported = None
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name and node.col_offset == 0:
            return node
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.col_offset == 0:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(each, ast.Name) and each.id == name for each in targets):
                return node
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            base = module if path.is_dir() else module.rpartition(".")[0]
            for _ in range(node.level - 1):
                base = base.rpartition(".")[0]
            imported = f"{base}.{node.module}" if node.level else node.module
    if imported is None:
        raise LookupError(f"{module} does not define {name}")
    return find(imported, name)


def signature(node: ast.FunctionDef, name: str | None = None, *, method: bool = False) -> str:
    """Return how a function is called, without `self`."""
    arguments = node.args
    static = any(isinstance(each, ast.Name) and each.id == "staticmethod" for each in node.decorator_list)
    if method and not static:
        arguments.args = arguments.args[1:]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None and name is None else ""
    whole = f"{name or node.name}({ast.unparse(arguments)}){returns}"
    if len(whole) <= 100:
        return whole
    # One argument a line: split at the commas that stand in no bracket.
    parts, depth, start, text = [], 0, 0, ast.unparse(arguments)
    for place, letter in enumerate(text):
        depth += letter in "([{"
        depth -= letter in ")]}"
        if letter == "," and depth == 0:
            parts.append(text[start:place].strip())
            start = place + 1
    parts.append(text[start:].strip())
    lines = "".join(f"    {part},\n" for part in parts)
    return f"{name or node.name}(\n{lines}){returns}"


def markdown(docstring: str) -> str:
    """Return a docstring of Google's style as Markdown: sections become lists, what is indented becomes code."""
    out: list[str] = []
    for block in re.split(r"\n{2,}", inspect.cleandoc(docstring)):
        head, _, rest = block.partition("\n")
        if head.rstrip(":") in _SECTIONS and head.endswith(":") and rest:
            items: list[str] = []
            for line in textwrap.dedent(rest).split("\n"):
                if line.startswith(" ") and items:
                    items[-1] += " " + line.strip()
                else:
                    items.append(line.strip())
            items = [re.sub(r"^(\*{0,2}\w+): ", r"`\1`: ", item) for item in items]
            if head in ("Returns:", "Yields:"):
                out.append(f"*{head[:-1]}:* " + " ".join(items))
            else:
                out.append(f"*{head[:-1]}:*\n\n" + "\n".join(f"- {item}" for item in items))
        elif all(line.startswith("    ") or not line for line in block.split("\n")):
            if out and out[-1].startswith("```text"):
                out[-1] = out[-1].removesuffix("\n```") + "\n\n" + textwrap.dedent(block) + "\n```"
            else:
                out.append("```text\n" + textwrap.dedent(block) + "\n```")
        else:
            out.append(block)
    return "\n\n".join(out)


def overrides(node: ast.FunctionDef) -> bool:
    """Return whether a method is told where it is first defined."""
    return any(isinstance(each, ast.Name) and each.id == "override" for each in node.decorator_list)


def entry(package: str, module: str, name: str) -> str:
    """Return the section of one name."""
    node = find(f"{package}.{module}", name)
    parts = [f"### {name}"]
    if isinstance(node, ast.FunctionDef):
        parts += [f"```python\n{signature(node)}\n```", markdown(ast.get_docstring(node) or "")]
    elif isinstance(node, ast.ClassDef):
        methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
        starts = [each for each in methods if each.name == "__init__"]
        fields = [each for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)]
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        if starts:
            parts.append(f"```python\n{signature(starts[0], name, method=True)}\n```")
        elif fields and not bases:
            names = ", ".join(each.target.id for each in fields if isinstance(each.target, ast.Name))
            shown = f"{name}({names})"
            parts.append("```python\n" + textwrap.fill(shown, 100, subsequent_indent="    ") + "\n```")
        elif bases:
            parts.append(f"A kind of `{bases}`." if "," not in bases else f"Bases: `{bases}`.")
        parts.append(markdown(ast.get_docstring(node) or ""))
        for each in methods:
            text = ast.get_docstring(each)
            if each.name.startswith("_") or overrides(each) or text is None:
                continue
            decorators = [ast.unparse(decorator) for decorator in each.decorator_list]
            if any(decorator.endswith((".setter", "overload")) for decorator in decorators):
                continue
            if any("property" in decorator for decorator in decorators):
                type_ = f": {ast.unparse(each.returns)}" if each.returns is not None else ""
                parts += [f"```python\n{name}.{each.name}{type_}\n```", markdown(text)]
            else:
                called = signature(each, method=True)
                parts += [f"```python\n{name}.{called}\n```", markdown(text)]
    else:
        value = node.value
        parts.append(f"```python\n{name} = {ast.unparse(value) if value is not None else '...'}\n```")
    return "\n\n".join(part for part in parts if part)


def reference() -> str:
    """Return the page."""
    parts = [_HEAD.rstrip()]
    for package in _PACKAGES:
        facade = importlib.import_module(package)
        parts += [f"## {package}", markdown(facade.__doc__ or "")]
        parts += [entry(package, facade._ORIGIN[name], name) for name in facade.__all__]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    print(reference(), end="")
