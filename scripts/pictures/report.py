"""Take the picture of a report for the documents: python scripts/pictures/report.py --report runs/hybrid/report.html.

The report is that of a run that stopped early, so that it shows mistakes:

    python examples/make_data.py my-data
    mlic-train --data my-data --epochs 4
    mlic-report run runs/hybrid --data my-data

It needs playwright and Debian's chromium, as scripts/test-web does.
"""

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT = 1160, 1400  # of the window, in pixels
LARGEST = 200_000  # bytes


def main() -> None:
    """Write docs/pictures/report.png: the first screen of the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "pictures")
    given = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(given.report.resolve().as_uri())
        picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(256)
        browser.close()
    file = given.output / "report.png"
    picture.save(file, optimize=True)
    print(f"{file}: {picture.width} x {picture.height}, {file.stat().st_size / 1000:.0f} kB")
    if file.stat().st_size > LARGEST:
        raise SystemExit(f"{file} has more than {LARGEST} bytes; make the window smaller")


if __name__ == "__main__":
    main()
