"""The page in Debian's Chromium: a site from `web/` and the released package, served by Python."""

import contextlib
import functools
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[2]
MILLISECONDS = 120_000  # turns a hang into a failure
LIBRARIES = (
    "onnxruntime-web/dist/ort.wasm.bundle.min.mjs",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
    "@huggingface/tokenizers/dist/tokenizers.min.mjs",
)


@dataclass
class Watched:
    """A page and what was seen while it was open."""

    page: Page
    address: str
    requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def wait_for_cards(self, count: int) -> None:
        self.page.locator("article[data-done]").nth(count - 1).wait_for()


def copy_site(target: Path) -> Path:
    """Make the site that `mlic-export --layout web` makes, from the libraries that npm has installed in web/.

    A test in tests/train compares the two lists of files.
    """
    target.mkdir(parents=True)
    for source in ROOT.glob("web/*"):
        if source.suffix in (".js", ".html", ".css"):
            shutil.copy(source, target)
    (target / "vendor").mkdir()
    for name in LIBRARIES:
        shutil.copy(ROOT / "web" / "node_modules" / name, target / "vendor")
    shutil.copytree(ROOT / "exported" / "hybrid", target / "model")
    shutil.copytree(ROOT / "examples", target / "examples")
    examples = [{"file": "cat.png", "caption": "A tabby cat."}, {"file": "coffee.jpg", "caption": ""}]
    (target / "examples" / "examples.json").write_text(json.dumps(examples))
    return target


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on a free port of this machine; yield the address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    executable = shutil.which("chromium")
    assert executable is not None, "Debian's chromium is not installed"
    with sync_playwright() as playwright:
        camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", *camera])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_site(tmp_path_factory.mktemp("web") / "site")


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    with served(site) as address:
        yield address


@contextlib.contextmanager
def opened(browser: Browser, address: str, *, ready: bool = True, width: int = 1200) -> Iterator[Watched]:
    """Open the page; with `ready`, wait for the model."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(MILLISECONDS)
    watched = Watched(page, address)
    page.on("request", lambda request: watched.requests.append(request.url))
    page.on("pageerror", lambda error: watched.problems.append(str(error)))
    page.on("console", lambda message: watched.problems.append(message.text) if message.type == "error" else None)
    page.goto(address)
    if ready:
        page.locator("body[data-ready]").wait_for()
    yield watched
    page.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Watched]:
    with opened(browser, address) as watched:
        yield watched
        assert watched.problems == []
        foreign = [url for url in watched.requests if not url.startswith((address, "blob:", "data:"))]
        assert foreign == [], "nothing may leave the browser"
