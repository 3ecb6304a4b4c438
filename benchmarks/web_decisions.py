"""Measures whether the page in a browser decides as the Python runtime does, on rows of a data set.

    mlic-export --layout web --output site
    pip install playwright          # it drives an installed Chromium
    python benchmarks/web_decisions.py --site site --data DATA --output benchmarks/results/web-decisions.json

Each row goes through the whole path in both: file, decoder, resize, tokenizer, graph, threshold. Captions are compared
as token ids too.
"""

import functools
import http.server
import json
import shutil
import threading
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click
import numpy as np
from common import describe, output_option, write_json
from playwright.sync_api import sync_playwright

from mlic_runtime import MlicError, Predictor
from mlic_runtime.caption.tokenizer import CaptionTokenizer
from mlic_runtime.package.model_package import load_package
from mlic_train.config import DataOptions
from mlic_train.data.splits import load_splits

_PREDICT = """async ({ rows }) => {
    const { predictor } = globalThis;
    const results = [];
    for (const { address, caption } of rows) {
        const picture = address === null ? null : await (await fetch(address)).blob();
        const { scores } = await predictor.predict({ picture, caption });
        results.push(scores.map(({ probability }) => probability));
    }
    return results;
}"""
_LOAD = """async () => {
    const ort = await import("./vendor/ort.wasm.bundle.min.mjs");
    const tokenizers = await import("./vendor/tokenizers.min.mjs");
    const { Predictor } = await import("./predictor.js");
    ort.env.wasm.wasmPaths = { wasm: new URL("vendor/ort-wasm-simd-threaded.wasm", document.baseURI).href };
    ort.env.wasm.numThreads = 1;
    globalThis.predictor = await Predictor.load("./model/", { ort, tokenizers });
    const { CaptionTokenizer } = await import("./tokenizer.js");
    const { readFile } = await import("./package-reader.js");
    const { manifest } = globalThis.predictor;
    const json = await readFile("./model/", manifest, "tokenizer.json");
    globalThis.tokenizer = new CaptionTokenizer(json, manifest.text, tokenizers);
    return ort.env.versions.web;
}"""
_MODES = ("picture and caption", "picture only", "caption only")
_BATCH = 20


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serve the site, and pictures below /data/ by their number."""

    pictures: tuple[Path, ...] = ()

    def translate_path(self, path: str) -> str:
        if path.startswith("/data/"):
            return str(self.pictures[int(unquote(path[len("/data/") :]))])
        return super().translate_path(path)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@click.command()
@click.option("--site", type=click.Path(exists=True, path_type=Path), required=True, help="A site of mlic-export.")
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True, help="Data with a val split.")
@output_option
def main(site: Path, data: Path, output: Path | None) -> None:
    """Compare the page with the Python runtime."""
    package = load_package(site / "model")
    manifest = package.manifest
    splits = load_splits(DataOptions(data))
    records = [record for record in splits.val.records if record.image is not None and record.captions]
    _Handler.pictures = tuple(Path(str(record.image)) for record in records)
    rows = [(f"data/{index}", record.captions[0]) for index, record in enumerate(records)]
    predictor = Predictor.load(site / "model")
    thresholds = np.array([label.threshold for label in manifest.labels])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    result: dict[str, Any] = {"rows": len(rows), "labels": len(manifest.labels), "precision": manifest.precisions[0]}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        result["browser"] = f"Chromium {browser.version}"
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_address[1]}/")
        result["onnxruntime-web"] = page.evaluate(_LOAD)
        if manifest.text is not None:
            captions = [caption for _, caption in rows]
            found = page.evaluate("(captions) => captions.map((each) => globalThis.tokenizer.encode(each))", captions)
            tokenizer = CaptionTokenizer(package.read("tokenizer.json"), manifest.text)
            result["captions with other ids"] = sum(
                ids != tokenizer.encode([caption])[0][0].tolist() for caption, ids in zip(captions, found, strict=True)
            )
        for mode in _MODES:
            asked = [
                {
                    "address": None if mode == "caption only" else address,
                    "caption": None if mode == "picture only" else caption,
                }
                for address, caption in rows
            ]
            answers: list[Any] = []
            for start in range(0, len(asked), _BATCH):
                answers += page.evaluate(_PREDICT, {"rows": asked[start : start + _BATCH]})
            expected = []
            for path, row in zip(_Handler.pictures, asked, strict=True):
                prediction = predictor.predict(None if row["address"] is None else path, row["caption"])
                expected.append([prediction.probabilities[label.name] for label in manifest.labels])
            result[mode] = _compare(np.array(answers), np.array(expected), thresholds)
        browser.close()
    server.shutdown()
    shown = {**describe("the page in a browser against the Python runtime, on val"), "result": result}
    click.echo(json.dumps(result, indent=2))
    if output is not None:
        write_json(output, shown)


def _compare(found: Any, expected: Any, thresholds: Any) -> dict[str, Any]:
    difference = np.abs(found - expected)
    equal = (found >= thresholds) == (expected >= thresholds)
    return {
        "equal decisions": round(float(equal.mean()), 6),
        "other decisions": int((~equal).sum()),
        "largest difference of a probability": round(float(difference.max()), 5),
        "mean difference of a probability": round(float(difference.mean()), 6),
    }


if __name__ == "__main__":
    try:
        main()
    except MlicError as error:
        raise SystemExit(f"Error: {error}") from error
