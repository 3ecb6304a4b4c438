"""The page that `mlic-serve` shows: the same page, with the model on the server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from mlic_runtime import Predictor
from tests.serving import server

from .conftest import ROOT, Watched, opened

MODEL = ROOT / "exported" / "hybrid"
WITHOUT_EVIDENCE = ROOT / "tests" / "data" / "tiny"
CAT = ROOT / "examples" / "cat.png"


@pytest.fixture
def page(browser: Browser) -> Iterator[Watched]:
    with server(MODEL, "--precision", "int8") as (_, port), opened(browser, f"http://127.0.0.1:{port}/") as watched:
        yield watched
        foreign = [url for url in watched.requests if not url.startswith((watched.address, "blob:", "data:"))]
        assert foreign == [], "the page may talk to its server only"


def test_the_server_predicts_what_the_runtime_predicts(page: Watched) -> None:
    predictor = Predictor.load(MODEL, precision="int8")
    caption = "\U0001f600 a dog beside a horse"  # the first character has two UTF-16 units
    page.page.set_input_files("#files", CAT)
    page.wait_for_cards(1)
    assert page.page.inner_text("article h2") == "cat"
    page.page.fill("article input", caption)
    page.page.locator("article[data-done='2']").wait_for()
    expected = predictor.predict(CAT, caption, evidence=True)
    assert page.page.inner_text("article h2") == ", ".join(expected.labels)
    assert expected.evidence is not None
    assert page.page.locator("article .words span").all_text_contents() == list(expected.evidence.words)
    assert page.page.evaluate("document.querySelector('canvas').width") > 1
    assert "to the server and back" in page.page.inner_text("article .time")
    assert "are sent to 127.0.0.1" in page.page.inner_text("#promise")
    assert page.page.locator("#places").is_hidden()
    assert page.page.locator("article .explain").is_hidden()
    assert page.page.locator("article .slow").is_hidden()
    assert page.page.locator("noscript").count() == 1
    assert page.problems == []


def test_a_model_that_does_not_explain_itself_is_asked_to_only_on_demand(browser: Browser) -> None:
    with server(WITHOUT_EVIDENCE) as (_, port), opened(browser, f"http://127.0.0.1:{port}/") as watched:
        page, card = watched.page, watched.page.locator("article")
        with page.expect_response("**/v1/predict") as answer:
            page.set_input_files("#files", CAT)
        assert "evidence" not in answer.value.json()
        watched.wait_for_cards(1)
        assert "some 50 times" in card.locator(".slow").inner_text()
        assert card.locator(".scores button:enabled").count() == 0
        with page.expect_response("**/v1/predict") as answer:
            card.locator(".explain").press("Enter")
        assert answer.value.json()["evidence"]["method"] == "occlusion"
        page.locator("article[data-done='2'] .scores button:focus").wait_for()
        assert card.locator(".explain").is_hidden()
        assert card.locator(".slow").is_hidden()
        assert page.evaluate("document.querySelector('canvas').width") > 1
        assert "found by covering each place" in card.locator(".meaning").inner_text()
        with page.expect_response("**/v1/predict") as answer:
            card.locator("input").fill("red")
        assert "evidence" not in answer.value.json()
        page.locator("article[data-done='3']").wait_for()
        assert card.locator(".explain").is_enabled()
        assert card.locator(".legend").is_hidden()
        assert watched.problems == []


def test_what_the_server_refuses_is_one_line(page: Watched, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_bytes(b"this is no picture")
    page.page.set_input_files("#files", tmp_path / "text.png")
    page.wait_for_cards(1)
    error = page.page.inner_text("article .error")
    assert "picture" in error
    assert "\n" not in error
    page.problems.clear()  # the browser logs the answer 400 itself


def test_a_server_that_is_gone_is_told(browser: Browser) -> None:
    with server(MODEL) as (process, port), opened(browser, f"http://127.0.0.1:{port}/") as watched:
        process.kill()
        process.wait()
        watched.page.set_input_files("#files", CAT)
        watched.wait_for_cards(1)
        assert watched.page.inner_text("article .error").startswith("the server does not answer")


def test_the_page_of_a_site_lets_one_choose_where_the_model_runs(browser: Browser, site: Path) -> None:
    with (
        server(MODEL, "--precision", "int8", "--page", str(site)) as (_, port),
        opened(browser, f"http://127.0.0.1:{port}/") as watched,
    ):
        watched.page.set_input_files("#files", CAT)
        watched.wait_for_cards(1)
        assert "to the server" in watched.page.inner_text("article .time")
        assert not any("/model/" in url for url in watched.requests)
        watched.page.get_by_label("in this browser").check()
        watched.page.locator("article[data-done='2']").wait_for()
        assert "in the model" in watched.page.inner_text("article .time")
        assert watched.page.inner_text("article h2") == "cat"
        assert "stay on this device" in watched.page.inner_text("#promise")
        assert watched.page.evaluate("crossOriginIsolated")
        sent = len([url for url in watched.requests if url.endswith("/v1/predict")])
        watched.page.set_input_files("#files", CAT)
        watched.wait_for_cards(2)
        assert len([url for url in watched.requests if url.endswith("/v1/predict")]) == sent
        assert watched.problems == []
