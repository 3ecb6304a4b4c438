"""How long the page in a browser takes with each graph, with one thread and with as many as the processor has.

    mlic-export --layout web --precision int8 --output site-int8       # and so on
    pip install playwright          # it drives an installed Chromium
    python benchmarks/web_time.py --site site-int8 --site site-int8-full --site site-fp32

Each site is opened twice: as any server of static files sends it, where ONNX Runtime Web has one thread, and with the
two headers of cross-origin isolation, where it has up to four. All pages predict in turns. The download is the sum of
the files that the page asks for, as they are and with gzip -6; "ready after" is the median over new tabs, without a
cache, on this machine's loopback: hashing, compiling and starting, no network.
"""

import functools
import gzip
import http.server
import shutil
import statistics
import threading
from pathlib import Path
from typing import Any, ClassVar

import click
import numpy as np
from common import ROOT, describe, markdown_table, output_option, rounds_option, write_json
from playwright.sync_api import Request, sync_playwright

_ISOLATION = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
_LOADS = 5  # of each page
_CAPTION = "a tabby cat looks into the camera"
_PREPARE = """async () => {
    const { load } = await import("./in-browser.js");
    globalThis.predictor = await load(() => {});
    globalThis.picture = await (await fetch("examples/cat.png")).blob();
}"""
_PREDICT = """async (caption) => {
    const { milliseconds } = await globalThis.predictor.predict({ picture: globalThis.picture, caption });
    return milliseconds.graph;
}"""


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serve a site without a cache, with more headers."""

    headers_to_add: ClassVar[dict[str, str]] = {}

    def end_headers(self) -> None:
        for name, value in {"Cache-Control": "no-store", **self.headers_to_add}.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class _Isolated(_Handler):
    headers_to_add = _ISOLATION


def _note(asked: set[str], address: str, request: Request) -> None:
    asked.add(request.url.removeprefix(address))


@click.command()
@click.option(
    "--site", "sites", type=click.Path(exists=True, path_type=Path), multiple=True, required=True, help="A site."
)
@rounds_option(30, 5)
@output_option
def main(sites: "tuple[Path, ...]", rounds: int, output: "Path | None") -> None:
    """Measure loading and predicting in Chromium."""
    found: list[dict[str, Any]] = []
    pages = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for site in sites:
            for handler in (_Handler, _Isolated):
                server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=site))
                threading.Thread(target=server.serve_forever, daemon=True).start()
                address = f"http://127.0.0.1:{server.server_address[1]}/"
                ready: list[float] = []
                asked: set[str] = set()
                for _ in range(_LOADS):
                    page = browser.new_page()
                    page.on("request", functools.partial(_note, asked, address))
                    page.goto(address)
                    page.locator("body[data-ready]").wait_for()
                    ready.append(page.evaluate("performance.now()"))
                    page.close()
                page = browser.new_page()
                page.goto(address)
                page.locator("body[data-ready]").wait_for()
                facts = page.inner_text("#facts")
                page.evaluate(_PREPARE)
                pages.append(page)
                files = [site / (name or "index.html") for name in asked if not name.startswith(("blob:", "data:"))]
                contents = [file.read_bytes() for file in files]
                found.append(
                    {
                        "graph": facts.split(", ")[1],
                        "threads": facts.split("ONNX Runtime Web ")[1].split(" with ")[1].split(",")[0],
                        "download_bytes": sum(map(len, contents)),
                        "gzip_bytes": sum(len(gzip.compress(content, 6)) for content in contents),
                        "until_ready_ms": round(statistics.median(ready)),
                    }
                )
        times: list[list[float]] = [[] for _ in pages]
        for turn in range(rounds + 2):
            for page, values in zip(pages, times, strict=True):
                page.bring_to_front()
                value = page.evaluate(_PREDICT, _CAPTION)
                if turn >= 2:  # the first ones warm up
                    values.append(value)
        version = browser.version
        browser.close()
    for entry, values in zip(found, times, strict=True):
        low, middle, high = np.percentile(values, [10, 50, 90])
        entry.update(
            graph_ms=round(float(middle), 1), graph_ms_p10=round(float(low), 1), graph_ms_p90=round(float(high), 1)
        )
    rows = [
        [
            entry["graph"],
            entry["threads"],
            f"{entry['download_bytes'] / 1e6:.1f}",
            f"{entry['gzip_bytes'] / 1e6:.1f}",
            str(entry["until_ready_ms"]),
            f"{entry['graph_ms']:.0f} ({entry['graph_ms_p10']:.0f} to {entry['graph_ms_p90']:.0f})",
        ]
        for entry in found
    ]
    click.echo(markdown_table(["graph", "threads", "MB", "MB, gzip", "ready after, ms", "graph, ms"], rows))
    what = f"the page with each graph, in turns, {ROOT.joinpath('examples', 'cat.png').name} with a caption"
    write_json(output, {**describe(what), "browser": f"Chromium {version}", "rounds": rounds, "result": found})


if __name__ == "__main__":
    main()
