"""Take the pictures of the page for the documents: python scripts/pictures/page.py --site site.

`site` is what `mlic-export --layout web` wrote. It needs playwright and Debian's chromium, as scripts/test-web does.
"""

import argparse
import functools
import http.server
import io
import shutil
import threading
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[2]
PICTURES = {"page": (1000, 800), "page-phone": (360, 800)}  # name: width and height of the window in pixels
LARGEST = 200_000  # bytes; a palette would hide the faint places of the heat map


def main() -> None:
    """Write docs/pictures/page.png and page-phone.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--site", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "pictures")
    given = parser.parse_args()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=given.site)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (width, height) in PICTURES.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(f"http://127.0.0.1:{server.server_address[1]}/")
            page.locator("body[data-ready]").wait_for()
            page.click("#example")
            page.locator("article[data-done]").nth(2).wait_for()
            page.evaluate("document.activeElement.blur()")
            page.mouse.move(1, 1)
            page.emulate_media(reduced_motion="reduce")
            if name == "page-phone":
                page.locator("article").first.scroll_into_view_if_needed()
                page.evaluate("document.querySelector('article').scrollIntoView()")
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            file = given.output / f"{name}.png"
            picture.save(file, optimize=True)
            print(f"{file}: {picture.width} x {picture.height}, {file.stat().st_size / 1000:.0f} kB")
            if file.stat().st_size > LARGEST:
                raise SystemExit(f"{file} has more than {LARGEST} bytes; make the window smaller")
        browser.close()
    server.shutdown()


if __name__ == "__main__":
    main()
