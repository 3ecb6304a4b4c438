import json
import re
from html.parser import HTMLParser

import pytest

from mlic_runtime.predict.prediction import MAX_CHARACTERS, MAX_ROWS, Prediction

HOSTILE = "<script>alert('\"&')</script>\n\x1b[31m\udcff"


@pytest.fixture
def prediction() -> Prediction:
    probabilities = {"dog": 0.912, "cat": 0.5, "car": 0.0004}
    return Prediction("a.jpg", "A dog", ("dog", "cat"), probabilities, "m@1")


def test_a_prediction_becomes_plain_data(prediction: Prediction) -> None:
    data = prediction.to_dict()
    assert data == {
        "image": "a.jpg",
        "caption": "A dog",
        "labels": ["dog", "cat"],
        "probabilities": {"dog": 0.912, "cat": 0.5, "car": 0.0004},
        "model": "m@1",
    }
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    data["probabilities"].clear()
    assert prediction.probabilities, "the dictionary is the caller's own"


def test_a_prediction_is_short_to_look_at(prediction: Prediction) -> None:
    assert repr(prediction) == "<Prediction a.jpg: dog 0.91, cat 0.50>"
    assert repr(Prediction(None, None, (), {}, "m@1")) == "<Prediction (no path): no label>"
    assert repr(Prediction("a.jpg", None, ("dog", "cat"), {"dog": 0.9}, "m@1")) == "<Prediction a.jpg: dog 0.90, cat>"


def test_it_stays_on_one_line_whatever_the_names_hold() -> None:
    found = repr(Prediction(HOSTILE, HOSTILE, (HOSTILE,), {HOSTILE: 0.5}, "m@1"))
    assert found.isprintable()


# --- notebooks


class Reader(HTMLParser):
    """The tags of a page with their attributes, and the cells of every row of its tables as text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.caption = ""
        self.feed(page)
        self.close()
        assert self.open == [], "every tag is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "br":
            self.caption += "\n"
            return
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag == "td":
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "caption" in self.open:
            self.caption += data
        else:
            self.rows[-1][-1] += data

    @property
    def widths(self) -> list[float]:
        """Of the bars, in percent."""
        styles = [values.get("style") or "" for tag, values in self.tags if tag == "div"]
        return [float(width) for style in styles for width in re.findall(r"width:([\d.]+)%", style)]


def test_a_notebook_shows_a_table_with_bars(prediction: Prediction) -> None:
    page = Reader(prediction._repr_html_())
    assert page.caption == "image: a.jpg\ncaption: A dog\nmodel: m@1"
    assert page.rows == [["dog", "", "0.9120", "✓"], ["cat", "", "0.5000", "✓"], ["car", "", "0.0004", ""]]
    assert page.widths == [91.2, 50.0, 0.0]
    assert [tag for tag, _ in page.tags].count("b") == 2, "predicted labels are bold"


def test_what_was_not_given_is_not_shown() -> None:
    assert Reader(Prediction(None, None, (), {"dog": 1.0}, "m@1")._repr_html_()).caption == "model: m@1"


def test_every_text_is_escaped() -> None:
    html = Prediction(HOSTILE, HOSTILE, (HOSTILE,), {HOSTILE: 0.5, "x" + HOSTILE: 0.25}, HOSTILE)._repr_html_()
    page = Reader(html)
    shown = "<script>alert('\"&')</script>\\n\\x1b[31m\\udcff"
    assert page.caption == f"image: {shown}\ncaption: {shown}\nmodel: {shown}"
    assert [row[0] for row in page.rows] == [shown, "x" + shown]
    assert {tag for tag, _ in page.tags} == {"table", "caption", "br", "tbody", "tr", "td", "b", "div"}
    assert {name for _, values in page.tags for name in values} == {"style"}
    assert html.encode("utf-8"), "a notebook file is UTF-8"


def test_nothing_comes_from_elsewhere_and_no_theme_is_assumed(prediction: Prediction) -> None:
    html = prediction._repr_html_()
    for word in ("script", "http", "url(", "#", "rgb", "black", "white", "class="):
        assert word not in html


def test_long_texts_are_cut(prediction: Prediction) -> None:
    page = Reader(Prediction("x" * 10_000, "y" * 10_000, (), {"z" * 10_000: 0.5}, "m@1")._repr_html_())
    assert page.caption.startswith(f"image: {'x' * (MAX_CHARACTERS - 1)}…\n")
    assert page.rows[0][0] == "z" * (MAX_CHARACTERS - 1) + "…"


def test_a_table_has_few_rows_and_all_predicted_labels() -> None:
    probabilities = {f"label {index}": 0.9 - index / 100 for index in range(30)}
    chosen = ("label 0", "label 20")
    page = Reader(Prediction(None, None, chosen, probabilities, "m@1")._repr_html_())
    assert [row[0] for row in page.rows[:3]] == ["label 0", "label 20", "label 1"]
    assert len(page.rows) == MAX_ROWS + 1
    assert page.rows[-1] == [f"{30 - MAX_ROWS} less probable not shown"]
    everything = Reader(Prediction(None, None, tuple(probabilities), probabilities, "m@1")._repr_html_())
    assert len(everything.rows) == 30


def test_a_label_outside_of_the_top_k_has_no_bar() -> None:
    page = Reader(Prediction(None, None, ("dog", "cat"), {"dog": 0.9}, "m@1")._repr_html_())
    assert page.rows == [["dog", "", "0.9000", "✓"], ["cat", "", "", "✓"]]
    assert page.widths == [90.0]
