"""Lays out the documents and their pictures in .site/source, for mkdocs.yml.

The tree is that of the repository, so every link between documents holds. A link to anything else, such as a folder
with code, becomes its text.
"""

import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / ".site" / "source"
_LINK = re.compile(r"(?<!!)\[([^\]\n]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def main() -> None:
    """Write the tree anew."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "*.md", "*.svg", "*.png", "*.jpg"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    kept = {
        name for name in names if name and (ROOT / name).is_file() and not name.startswith(("tests/", "web/tests/"))
    }
    shutil.rmtree(SOURCE, ignore_errors=True)
    for name in sorted(kept):
        target = SOURCE / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not name.endswith(".md"):
            shutil.copyfile(ROOT / name, target)
            continue
        folder = Path(name).parent

        def link(match: re.Match[str], folder: Path = folder) -> str:
            text, to, _ = match.groups()
            if "://" in to or to.startswith("mailto:"):
                return match[0]
            inside = (ROOT / folder / to).resolve()
            return match[0] if inside.is_relative_to(ROOT) and str(inside.relative_to(ROOT)) in kept else text

        target.write_text(_LINK.sub(link, (ROOT / name).read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
