"""Explained predictions as a page, a picture, JSON and in a notebook."""

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from mlic_runtime import Predictor
from mlic_runtime.base.override import override
from mlic_runtime.cli.infer import infer
from mlic_runtime.errors import InputError, OutputError
from mlic_runtime.explain.colours import heat_map, signed, strength
from mlic_runtime.explain.drawing import to_png
from mlic_runtime.explain.explanation import MAX_EXPLAINED, Explanation
from mlic_runtime.explain.file import write_explanation
from mlic_runtime.explain.page import SHOWN_SCORES, to_page
from mlic_runtime.predict.evidence import Evidence
from mlic_runtime.predict.prediction import Prediction, explain

HOSTILE = "<script>alert('x')</script>\"&\x1b[31m\u202e\ud800\n]]>--><img src=//example.org onerror=a>"
RED = np.full((12, 16, 3), (255, 0, 0), dtype=np.uint8)


class Page(HTMLParser):
    """What a page holds: tags with their attributes, and the text of each element by its class or tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    @override
    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def run_infer(*arguments: "str | Path") -> Result:
    return CliRunner().invoke(infer, [str(argument) for argument in arguments])


def make(
    labels: tuple[str, ...] = ("cat",),
    others: tuple[str, ...] = ("dog",),
    caption: str | None = "a cat",
    spans: tuple[tuple[int, int], ...] = ((0, 1), (2, 5)),
    method: str = "contributions",
    picture: npt.NDArray[np.float32] | None = None,
) -> Prediction:
    names = (*labels, *others)
    cells = np.array([[0, 1], [-4, 0]], dtype=np.float32) if picture is None else picture
    evidence = Evidence(
        method=method,
        picture=dict.fromkeys(names, cells),
        words=tuple((caption or "")[start:end] for start, end in spans),
        spans=spans,
        caption={name: np.linspace(-1, 2, len(spans), dtype=np.float32) for name in names} if spans else None,
        rest=dict.fromkeys(names, -2.5) if method == "contributions" else {},
        pixels=RED,
    )
    probabilities = {name: 0.9 - 0.001 * index for index, name in enumerate(names)}
    return Prediction("cat.jpg", caption, labels, probabilities, "m@1", evidence)


def page_of(prediction: Prediction, thresholds: dict[str, float] | None = None) -> Page:
    return Page(to_page(explain(prediction, thresholds, "stretch")))


def test_a_page_needs_no_other_file_and_runs_nothing() -> None:
    text = to_page(explain(make(), {"cat": 0.5}, "crop"))
    page = Page(text)
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    style = re.search("<style>(.*?)</style>", text, re.DOTALL)
    assert policy is not None
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert not {"script", "link", "iframe", "a", "object", "form"} & {tag for tag, _ in page.tags}
    assert all((image["src"] or "").startswith("data:image/png;base64,") for image in page.all("img"))
    assert not any(
        "style" in attributes or any(name.startswith("on") for name in attributes) for _, attributes in page.tags
    )
    assert "url(" not in text
    assert "@import" not in text


def test_a_page_says_what_was_predicted_why_and_how() -> None:
    page = page_of(make(), {"cat": 0.5, "dog": 0.95})
    said = " ".join(page.texts)
    assert "Predicted: cat" in said
    assert "contributions" in said
    assert "for +1.00, against -4.00, rest of the logit -2.50" in said
    assert {"0.500", "0.950", "0.900"} <= set(page.texts)
    assert page.all("line")[0]["x1"] == "100.0"
    assert {"-1.00", "+2.00", "a", "cat"} <= set(page.texts)
    assert "stretched to its size, 16 x 12 pixels" in said
    alts = [image["alt"] or "" for image in page.all("img")]
    assert alts[1] == "Heat map of cat: +1.00 for, -4.00 against; most in row 1 of 2, column 2 of 2"
    # The legends: of the places up to 4, of the words up to 2.
    assert {"-4", "+4", "-2", "+2"} <= set(page.texts)


def test_occlusion_is_named_and_has_no_rest() -> None:
    said = " ".join(page_of(make(method="occlusion")).texts)
    assert "occlusion, since this package has no evidence outputs" in said
    assert "rest of the logit" not in said
    assert "do not add up" in said


def test_every_text_of_a_stranger_is_escaped() -> None:
    spans = ((0, 8), (9, 14), (20, len(HOSTILE)))
    prediction = make((HOSTILE,), (HOSTILE + "2",), HOSTILE, spans)
    prediction = Prediction(HOSTILE, HOSTILE, prediction.labels, prediction.probabilities, HOSTILE, prediction.evidence)
    for text in (to_page(explain(prediction, None, "stretch")), prediction._repr_html_()):
        page = Page(text)
        assert not page.all("script")
        assert all((image["src"] or "").startswith("data:") for image in page.all("img"))
        assert not any(character in text for character in "\x1b\u202e\ud800")
        text.encode()
    assert Image.open(io.BytesIO(to_png(explain(prediction, None, "stretch")))).size[0] > 1000


@pytest.mark.parametrize("caption", ["x" * 20_000, "日本語 مرحبا 👩\u200d👩", " \t\n"])
def test_any_caption_is_shown(caption: str) -> None:
    spans = ((0, 1),) if caption.strip() else ()
    explanation = explain(make(caption=caption, spans=spans), None, "stretch")
    assert Page(to_page(explanation)).all("img")
    assert Image.open(io.BytesIO(to_png(explanation))).size[0] > 1000


def test_what_the_model_did_not_read_of_a_caption_is_shown_as_such() -> None:
    page = page_of(make(caption="a cat and more", spans=((0, 1), (2, 5))))
    assert "and more" in page.texts
    assert "The model did not read what is in grey." in page.texts


def test_words_that_overlap_are_shown_once() -> None:
    explanation = explain(make(caption="abc d", spans=((0, 2), (1, 3), (4, 5))), None, None)
    assert list(explanation.pieces()) == [("ab", 0), ("c", 1), (" ", None), ("d", 2)]


def test_predicted_labels_are_explained_else_the_most_probable() -> None:
    names = tuple(f"label {index}" for index in range(9))
    many = explain(make(names, ("other",)))
    assert [each.name for each in many.evidence] == list(names[:MAX_EXPLAINED])
    assert many.unexplained == 3
    assert "3 more predicted labels are in the table only." in Page(to_page(many)).texts
    none = explain(make((), names))
    assert [each.name for each in none.evidence] == list(names[:3])
    assert "Predicted: no label" in Page(to_page(none)).texts
    assert f"{9 - SHOWN_SCORES} less probable labels" in Page(to_page(none)).texts


def test_a_predicted_label_beyond_the_top_k_is_explained_without_a_number(tiny: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(tiny)
    prediction = predictor.predict(None, "bright", threshold=0, top_k=1, evidence=True)
    predictor.save_explanation(prediction, tmp_path / "page.html", threshold=0)
    predictor.save_explanation(prediction, tmp_path / "page.png", threshold=0)
    assert len(prediction.probabilities) == 1
    titles = [text for text in Page((tmp_path / "page.html").read_text()).texts if text.endswith(", predicted")]
    assert len(titles) == 3
    assert sum("0." in title for title in titles) == 1


def test_evidence_of_nothing_but_zeros_has_no_legend() -> None:
    page = page_of(make(picture=np.zeros((2, 2), dtype=np.float32)))
    assert "Nothing speaks for or against these labels: every number of a place of the picture is 0." in page.texts


def test_a_prediction_without_evidence_is_not_explained() -> None:
    with pytest.raises(InputError, match="no evidence: predict with evidence=True"):
        explain(Prediction(None, "a", (), {"cat": 0.1}, "m@1"))


def test_colours_tell_for_from_against_and_cells_lie_where_they_belong() -> None:
    values = np.array([[0, 0, 4], [-1, 0, 0]], dtype=np.float32)
    shown = np.asarray(heat_map(np.full((10, 15, 3), 255, np.uint8), values, 4.0, (30, 20))).astype(int)
    assert shown.shape == (20, 30, 3)
    warm, cold = shown[..., 0] - shown[..., 2] > 100, shown[..., 2] - shown[..., 0] > 50
    assert warm[:10, 20:].all()
    assert warm.sum() == 100
    assert cold[10:, :10].all()
    assert cold.sum() == 100
    assert strength(values, 4.0).tolist() == [[0, 0, 1], [-0.5, 0, 0]]
    assert (signed(-0.001), signed(0.5), signed(-3.0)) == ("0.00", "+0.50", "-3.00")


@pytest.mark.parametrize("name", ["page.html", "PAGE.HTM", "picture.png"])
def test_a_file_is_written_by_its_ending_and_may_be_replaced(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / name
    for labels in (("cat",), ("dog",)):
        write_explanation(explain(make(labels, ())), path)
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG" if name.endswith("png") else b"<!doctype html>")
    assert [each.name for each in path.parent.iterdir()] == [name]
    if not name.endswith("png"):
        assert b"dog" in content
        assert b">cat<" not in content.split(b"Where in the picture")[0]


@pytest.mark.parametrize("name", ["a.txt", "html", "a.html.gz", ""])
def test_another_ending_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"ends in \.html or \.png; found"):
        write_explanation(explain(make()), tmp_path / name)


def test_what_is_not_an_explanation_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "mine.html"
    path.write_text("<p>mine</p>")
    with pytest.raises(OutputError, match=r"exists and is not an explanation by MLIC: choose another file"):
        write_explanation(explain(make()), path)
    assert path.read_text() == "<p>mine</p>"
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError, match="it is a directory; choose another file"):
        write_explanation(explain(make()), tmp_path / "folder.png")


def test_a_failed_write_leaves_the_earlier_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.html"
    write_explanation(explain(make()), path)
    before = path.read_bytes()

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left on device; choose another file"):
        write_explanation(explain(make(("dog",))), path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_picture_has_a_panel_for_each_label() -> None:
    few, many = (
        Image.open(io.BytesIO(to_png(explain(make(tuple(f"label {i}" for i in range(count)), ()))))) for count in (1, 5)
    )
    assert many.width == few.width
    assert many.height > few.height + 192  # a second row of panels


def explained(predictor: Predictor, image: Any, caption: str | None) -> tuple[Evidence, Explanation]:
    prediction = predictor.predict(image, caption, evidence=True)
    assert prediction.evidence is not None
    return prediction.evidence, explain(prediction)


def corner(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """A grey picture with a red box (left, upper, right, lower)."""
    image = Image.new("RGB", size, (128, 128, 128))
    image.paste((255, 0, 0), box)
    return image


def test_the_heat_map_of_a_turned_picture_lies_on_the_upright_one(tiny: Path) -> None:
    image = corner((48, 64), (0, 0, 12, 16))  # stored: red at the top left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: red at the top right
    stream = io.BytesIO()
    image.save(stream, "PNG", exif=exif)
    evidence, explanation = explained(Predictor.load(tiny), stream.getvalue(), None)
    assert evidence.picture is not None
    assert explanation.pixels is not None
    assert explanation.pixels.shape == (6, 8, 3)
    assert explanation.pixels[0, -1].tolist() == [255, 0, 0]
    assert explanation.pixels[0, 0].tolist() == [128, 128, 128]
    best = np.unravel_index(evidence.picture["red"].argmax(), evidence.picture["red"].shape)
    assert best[0] < 3
    assert best[1] > 3


def test_the_heat_map_of_a_cropped_picture_lies_on_what_was_cut_out(
    tiny_copy: Path, edit_manifest: Callable[[Path, Callable[[dict[str, Any]], object]], None]
) -> None:
    edit_manifest(tiny_copy, lambda manifest: manifest["image"].update(resize="crop"))
    predictor = Predictor.load(tiny_copy)
    # 3 : 1, of which the middle 4 : 3 is seen; red is at the far left of the whole, and at the right of the middle.
    image = corner((180, 60), (0, 0, 20, 60))
    image.paste((255, 0, 0), (110, 0, 140, 60))
    evidence, explanation = explained(predictor, image, None)
    assert evidence.picture is not None
    assert explanation.pixels is not None
    assert explanation.pixels[3, 0].tolist() == [128, 128, 128]
    assert explanation.pixels[3, -1].tolist() == [255, 0, 0]
    columns = evidence.picture["red"].sum(axis=0)
    assert columns.argmax() == len(columns) - 1
    prediction = predictor.predict(image, None, evidence=True)
    predictor.save_explanation(prediction, tiny_copy.parent / "page.html")
    assert "cut out of the middle, at its size, 8 x 6 pixels" in (tiny_copy.parent / "page.html").read_text()


@pytest.fixture
def red(tmp_path: Path) -> Path:
    path = tmp_path / "red.png"
    Image.fromarray(RED).save(path)
    return path


@pytest.mark.parametrize("arguments", [("IMAGE",), ("IMAGE", "bright red"), ("IMAGE", "no", "--threshold", "1")])
def test_the_command_writes_a_page_beside_its_result(tiny: Path, red: Path, arguments: tuple[str, ...]) -> None:
    page = red.parent / "page.html"
    given = [str(red) if each == "IMAGE" else each for each in arguments]
    plain = run_infer(*given, "--model", tiny)
    shown = run_infer(*given, "--model", tiny, "--explain", page)
    assert (shown.exit_code, shown.stdout) == (0, plain.stdout)
    said = Page(page.read_text())
    assert "occlusion, since this package has no evidence outputs" in said.texts
    assert ("Which words" in said.texts) == (len(arguments) > 1)
    assert ("1.000" in said.texts) == (arguments[-1] == "1")  # the threshold of every label


def test_the_json_has_the_evidence_only_where_it_was_wanted(tiny: Path, red: Path) -> None:
    result = run_infer(red, "red", "--model", tiny, "--format", "json", "--explain", red.parent / "page.png")
    evidence = json.loads(result.stdout)["evidence"]
    predictor = Predictor.load(tiny)
    found = predictor.predict(red, "red", evidence=True).evidence
    assert found is not None
    assert found.picture is not None
    assert set(evidence) == {"method", "picture", "words", "spans", "caption", "rest"}
    assert np.array_equal(np.array(evidence["picture"]["red"], dtype=np.float32), found.picture["red"])
    assert (evidence["words"], evidence["spans"]) == (["red"], [[0, 3]])
    assert "evidence" not in json.loads(run_infer(red, "red", "--model", tiny, "--format", "json").stdout)


def test_the_command_never_writes_over_the_picture(tiny: Path, red: Path) -> None:
    before = red.read_bytes()
    result = run_infer(red, "--model", tiny, "--explain", red)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "exists and is not an explanation by MLIC" in result.stderr
    assert red.read_bytes() == before


def test_a_wrong_ending_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    result = run_infer("no.png", "--model", tmp_path / "none", "--explain", "page.pdf")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: an explanation is a file that ends in .html or .png; found 'page.pdf'\n",
    )


def test_many_rows_are_not_explained(tiny: Path, tmp_path: Path) -> None:
    result = run_infer("--input", tmp_path, "--model", tiny, "--explain", "page.html")
    assert result.exit_code == 2
    assert "'--explain' shows one picture: give IMAGE instead of '--input'" in result.stderr


def test_a_caption_alone_is_explained(tiny: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(tiny)
    prediction = predictor.predict(None, "bright no red", evidence=True)
    predictor.save_explanation(prediction, tmp_path / "page.html")
    predictor.save_explanation(prediction, tmp_path / "page.png")
    page = Page((tmp_path / "page.html").read_text())
    assert "Where in the picture" not in page.texts
    assert {"Which words", "bright", "no", "red"} <= set(page.texts)
    assert not page.all("img")


def test_a_model_that_reads_no_caption_is_explained(tiny_picture: Path, red: Path) -> None:
    predictor = Predictor.load(tiny_picture)
    predictor.save_explanation(predictor.predict(red, evidence=True), red.parent / "page.html")
    assert "Which words" not in Page((red.parent / "page.html").read_text()).texts


def test_a_notebook_shows_evidence_where_there_is_some(tiny: Path, red: Path) -> None:
    predictor = Predictor.load(tiny)
    shown = predictor.predict(red, "no red", evidence=True, threshold=0)._repr_html_()
    page = Page(shown)
    assert len(page.all("img")) == 3
    assert "<script" not in shown
    assert any("occlusion" in text for text in page.texts)
    assert not Page(predictor.predict(red, "no red")._repr_html_()).all("img")
