import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from mlic_runtime import Predictor

from .conftest import ROOT, Watched, opened, served

CAT, COFFEE = ROOT / "examples" / "cat.png", ROOT / "examples" / "coffee.jpg"


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.load(ROOT / "exported" / "hybrid", precision="int8")


def titles(watched: Watched) -> list[str]:
    found: list[str] = watched.page.locator("article h2").all_text_contents()
    return found


def test_pictures_are_chosen_by_file_and_labelled_as_by_the_runtime(page: Watched, predictor: Predictor) -> None:
    page.page.set_input_files("#files", [CAT, COFFEE])
    page.wait_for_cards(2)
    expected = [", ".join(predictor.predict(path).labels) or "None of its labels" for path in (COFFEE, CAT)]
    assert titles(page) == expected
    assert "cat" in titles(page)[1]


def test_a_caption_changes_the_answer(page: Watched, predictor: Predictor) -> None:
    page.page.set_input_files("#files", CAT)
    page.wait_for_cards(1)
    page.page.fill("article input", "a dog and a horse")
    page.page.locator("article[data-done='2']").wait_for()
    assert titles(page) == [", ".join(predictor.predict(CAT, "a dog and a horse").labels)]


def test_a_picture_is_dropped(page: Watched) -> None:
    content = base64.b64encode(CAT.read_bytes()).decode()
    transfer = page.page.evaluate_handle(
        """(content) => {
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
            return transfer;
        }""",
        content,
    )
    page.page.dispatch_event("body", "dragover", {"dataTransfer": transfer})
    assert page.page.locator("body.dropping").count() == 1
    page.page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    page.wait_for_cards(1)
    assert page.page.locator("body.dropping").count() == 0
    assert titles(page) == ["cat"]
    assert page.page.locator("article img").get_attribute("alt") == "dropped.png"


def test_the_keyboard_is_enough(page: Watched) -> None:
    keyboard = page.page.keyboard
    focused = "document.activeElement.id || document.activeElement.className || document.activeElement.dataset.label"
    for expected in ("files", "camera", "words"):
        keyboard.press("Tab")
        assert page.page.evaluate(focused) == expected
    keyboard.press("Enter")  # a card for a caption, with the focus in its field
    keyboard.type("a man rides a horse")
    page.page.locator("article[data-done]").wait_for()
    assert titles(page)[0].startswith("person") or "horse" in titles(page)[0]
    for _ in range(20):
        keyboard.press("Tab")
        if page.page.evaluate("document.activeElement.className") == "remove":
            break
    keyboard.press("Enter")
    assert page.page.locator("article").count() == 0
    assert page.page.evaluate("document.activeElement.id") == "files"


def test_the_camera_takes_a_picture(page: Watched) -> None:
    page.page.click("#camera")
    page.page.locator("#viewfinder").wait_for()
    page.page.click("#shoot")
    page.wait_for_cards(1)
    page.page.click("#close")
    assert page.page.locator("#viewfinder").is_hidden()
    assert page.page.evaluate("document.getElementById('video').srcObject") is None


def test_bad_files_get_one_line(page: Watched, tmp_path: Path) -> None:
    bad = {"empty.png": b"", "text.png": b"this is no picture", "cut.png": CAT.read_bytes()[:200]}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    page.page.set_input_files("#files", [tmp_path / name for name in bad])
    page.wait_for_cards(3)
    errors = page.page.locator("article .error").all_text_contents()
    assert [("empty" in errors[2]), ('"text.png" is not a picture' in errors[1]), ('"cut.png"' in errors[0])] == [
        True
    ] * 3
    assert not any("\n" in error for error in errors)
    page.page.set_input_files("#files", CAT)  # and the page goes on
    page.wait_for_cards(4)
    assert titles(page)[0] == "cat"


def test_all_labels_have_a_name_for_screen_readers(page: Watched, predictor: Predictor) -> None:
    page.page.click("#example")
    page.wait_for_cards(2)
    page.page.locator("article").first.get_by_role("button", name="Show all 18 labels").click()
    rows = page.page.locator("article").first.locator(".scores button")
    assert rows.count() == 18  # of the released model
    assert "threshold" in (rows.first.get_attribute("aria-label") or "")


def test_the_page_fits_a_phone(browser: Browser, address: str) -> None:
    with opened(browser, address, width=360) as watched:
        watched.page.set_input_files("#files", [CAT, COFFEE])
        watched.wait_for_cards(2)
        assert watched.page.evaluate("document.documentElement.scrollWidth") == 360
        assert len(watched.page.screenshot(full_page=True)) > 10_000


def test_a_flipped_byte_in_the_model_is_refused(browser: Browser, site: Path, tmp_path: Path) -> None:
    copy = tmp_path / "site"
    shutil.copytree(site, copy)
    graph = copy / "model" / "model.int8.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    with served(copy) as address, opened(browser, address, ready=False) as watched:
        watched.page.locator("#problem:not(:empty)").wait_for()
        assert "model.int8.onnx is not what the manifest says" in watched.page.inner_text("#problem")
        assert watched.page.locator("#files").is_disabled()


def test_a_page_without_a_model_says_so(browser: Browser, site: Path, tmp_path: Path) -> None:
    copy = tmp_path / "site"
    shutil.copytree(site, copy)
    shutil.rmtree(copy / "model")
    with served(copy) as address, opened(browser, address, ready=False) as watched:
        watched.page.locator("#problem:not(:empty)").wait_for()
        assert "cannot read manifest.json: the server answers 404" in watched.page.inner_text("#problem")


def test_the_policy_forbids_other_hosts(page: Watched) -> None:
    asked = "fetch('http://127.0.0.2:9/').then(() => 'allowed', (error) => error.message)"
    assert "Failed to fetch" in page.page.evaluate(asked)
    assert any("Content Security Policy" in problem for problem in page.problems)
    page.problems.clear()


def announced(watched: Watched) -> list[str]:
    """What a screen reader reads out by itself, in this order; from Chromium's accessibility tree."""
    session = watched.page.context.new_cdp_session(watched.page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    by_id = {node["nodeId"]: node for node in nodes}

    def texts(node: dict[str, Any]) -> Iterator[str]:
        if node.get("role", {}).get("value") == "StaticText":
            yield node["name"]["value"]
        for child in node.get("childIds", []):
            yield from texts(by_id[child])

    live = [node for node in nodes if node.get("role", {}).get("value") in ("log", "alert", "status")]
    assert [node["role"]["value"] for node in live if next(texts(node), None)] == ["log"]
    return [text for node in live for text in texts(node)]


def test_a_screen_reader_is_told_what_happens(page: Watched, tmp_path: Path) -> None:
    loaded = ["Loading the model…", "hybrid 0.6.0, ready: it knows 18 labels."]
    assert announced(page) == loaded, "each once: not every step of the progress"
    (tmp_path / "text.png").write_text("this is no picture")
    page.page.set_input_files("#files", [CAT, tmp_path / "text.png"])
    page.wait_for_cards(2)
    cat, bad = announced(page)[2:]
    assert cat == "cat.png: cat over 99 %"
    assert bad.startswith('text.png: "text.png" is not a picture')
    assert bad.endswith("save it as JPEG or PNG")
    page.page.get_by_role("article", name="cat.png").get_by_role("textbox", name="Caption").fill("a tabby cat sleeps")
    page.page.locator("article[data-done='2']").wait_for()
    assert announced(page)[4] == "cat.png: cat over 99 %", "the card is named, for there are several"
    page.page.get_by_role("article", name="cat.png").locator("[data-label=cat]").press("Enter")
    assert announced(page)[4:] == announced(page)[4:5], "what was pinned is let go"
    page.page.get_by_role("article", name="cat.png").locator("[data-label=cat]").press("Enter")
    evidence = announced(page)[5]
    assert evidence.startswith("cat: most from the ")
    assert "of the picture; words for it: " in evidence
    assert {"tabby", "cat"} & set(evidence.split("words for it: ")[1].split(", "))
    page.page.get_by_role("button", name="Remove text.png").click()
    assert page.page.get_by_role("article").count() == 1


def test_a_picture_that_cannot_be_read_asks_for_no_caption(page: Watched, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("this is no picture")
    page.page.set_input_files("#files", [tmp_path / "text.png", CAT])
    page.wait_for_cards(2)
    page.page.locator("article[aria-label='text.png'] input").wait_for(state="hidden")
    assert page.page.locator("article[aria-label='cat.png'] input").is_visible()
    assert page.page.inner_text("article .file") == "cat.png"
