import base64
import io
import re
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from mlic_runtime.errors import OutputError
from mlic_train.report.page import (
    Pair,
    Part,
    Section,
    Table,
    drawing,
    facts,
    render_page,
    thumbnail,
    write_page,
)
from mlic_train.report.plots import drawable, plot
from mlic_train.report.text import share, shorten

ROOT = Path(__file__).parents[2]
HOSTILE = "<script>alert('1')</script> & \"<img src=x onerror=y>\" \x00\x1b \ud800 $a_$ ${"


class Reader(HTMLParser):
    """Fails where a tag is not closed in order; keeps tags and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(document: str) -> Reader:
    reader = Reader()
    reader.feed(document)
    reader.close()
    assert not reader._open
    return reader


def images(document: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/\w+;base64,([^"]*)"', document)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def line(size: tuple[float, float] = (3, 2), title: str = "") -> Figure:
    figure = Figure(figsize=size)
    figure.add_subplot().set_title(title)
    return figure


def page(*parts: Part) -> str:
    return render_page("", parts)


def test_text_stays_text_wherever_it_is_put() -> None:
    picture = Image.new("RGB", (8, 8))
    parts: list[Part] = [
        Section(HOSTILE, HOSTILE, [Section(HOSTILE, "", [Table([HOSTILE], [[HOSTILE]])])]),
        facts([[HOSTILE]], folded=HOSTILE),
        Pair(thumbnail(picture, HOSTILE), drawing(picture, HOSTILE, HOSTILE), HOSTILE),
        plot(line(), HOSTILE),
    ]
    document = render_page(HOSTILE, parts, [HOSTILE])
    document.encode("utf-8")
    reader = read(document)
    assert "script" not in reader.tags
    assert not re.search("[\x00\x1b]", document)
    shown = HOSTILE.replace("\x00", "\ufffd").replace("\x1b", "\ufffd").replace("\ud800", "\ufffd")
    assert reader.text.count(shown) == 13  # the title is in two places
    assert [value for key, value in reader.attributes if key == "alt"] == [shown] * 3
    assert {key for key, _ in reader.attributes} <= {"lang", "charset", "name", "content", "class", "alt", "src"}


def test_numbers_in_cells_are_short_and_unknown_ones_are_empty() -> None:
    cells = [1234, np.int64(1234), 0.123456, np.float64(2), None, True, "1234"]
    assert re.findall("<td>(.*?)</td>", page(Table([""], [cells]))) == [
        "1,234",
        "1,234",
        "0.1235",
        "2.0000",
        "",
        "True",
        "1234",
    ]


def test_sections_inside_sections_have_smaller_headings() -> None:
    document = page(Section("a", "A.", [Section("b", "", [facts([])]), Section("c", "C.")]), Section("d", ""))
    assert re.findall("<(h[1-6])>(.*?)</h", document) == [
        ("h1", ""),
        ("h2", "a"),
        ("h3", "b"),
        ("h3", "c"),
        ("h2", "d"),
    ]
    assert re.findall("<p>(.*?)</p>", document) == ["A.", "C."]


def test_pictures_are_small_and_drawings_keep_their_size() -> None:
    large = Image.new("RGB", (900, 300), "red")
    small, drawn = images(page(thumbnail(large, ""), drawing(large, "", "")))
    assert (small.format, small.size) == ("JPEG", (180, 60))
    assert (drawn.format, drawn.size) == ("PNG", (900, 300))


def test_a_plot_that_is_wider_than_the_page_scrolls() -> None:
    assert '<p class="scroll"><img' in page(plot(line(), ""))
    assert '<p class="scroll wide"><img' in page(plot(line((18, 2)), ""))


def test_one_plot_gives_the_same_bytes_each_time() -> None:
    assert plot(line(title="a"), "") == plot(line(title="a"), "") != plot(line(title="b"), "")


@pytest.mark.parametrize("text", ["$", "$$", "a $5 and $6", r"\$x$", "$\\frac{", "猫 \u0e01"])
def test_a_plot_draws_any_text_as_it_stands(text: str) -> None:
    figure = line(title=drawable(text))
    assert len(images(page(plot(figure, "")))) == 1


def test_the_wheel_holds_every_template(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, capture_output=True, check=True)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    templates = {path.relative_to(ROOT).as_posix() for path in (ROOT / "mlic_train/report/templates").iterdir()}
    assert {"page.html", "style.css"} <= {Path(name).name for name in templates}
    assert templates <= set(names)


def test_a_page_replaces_the_older_one_only_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "new" / "folder" / "report.html"
    write_page(file, "old")

    def fail(path: Path, content: bytes) -> int:
        with path.open("wb") as stream:
            stream.write(content[:1])
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fail)
        with pytest.raises(OutputError, match=r"cannot write .*disk full"):
            write_page(file, "new")
    assert file.read_text() == "old"
    assert list(file.parent.iterdir()) == [file]
    write_page(file, "new")
    assert file.read_text() == "new"


def test_shares_are_not_rounded_to_nothing_or_all() -> None:
    shares = [share(*both).replace("\u00a0", " ") for both in ((0, 5), (5, 5), (1, 3), (1, 5000), (4999, 5000), (0, 0))]
    assert shares == ["0 %", "100 %", "33.3 %", "under 0.1 %", "over 99.9 %", "0 %"]
    assert (shorten("abc", 3), shorten("abcd", 3)) == ("abc", "ab…")
