"""Writes what the released package says of the examples, for the test that compares it.

    python tests/released_probabilities.py tests/data/released.json

Run it after each release, on a processor with VNNI or the ARM dot product: every graph of the package has to run.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from mlic_runtime import Prediction, Predictor, Row
from mlic_runtime.graph.opening import runnable_precisions
from mlic_runtime.package.model_package import ModelPackage, load_package

ROOT = Path(__file__).parents[1]
RELEASED = ROOT / "exported" / "hybrid"
MODES = ("both", "picture only", "caption only")

# Every picture of examples/, and captions that name every label of the released model.
PICTURES = {
    "astronaut.jpg": "a smiling astronaut in front of a flag",
    "cat.png": "a tabby looks into the camera",
    "coffee.jpg": "a cup of coffee on a wooden table",
}
CAPTIONS = (
    "a man on a bicycle rides past a parked car and a motorcycle",
    "an airplane above a boat in the harbour",
    "a bus, a truck and a train at a traffic light",
    "a fire hydrant beside a stop sign and a parking meter",
    "a bird sits on a bench in the park",
    "a dog runs beside a horse while a cat sleeps",
)


def example_rows(mode: str) -> list[Row]:
    """Return the examples as the model is given them in one of MODES."""
    pictures = [
        Row(
            None if mode == "caption only" else ROOT / "examples" / name,
            None if mode == "picture only" else caption,
            name=name,
        )
        for name, caption in PICTURES.items()
    ]
    return pictures + [Row(None, caption) for caption in CAPTIONS if mode == "caption only"]


def probabilities(package: ModelPackage, precision: str) -> dict[str, list[list[float]]]:
    """Return the probabilities of the examples by mode, (N, L), in the order of the manifest's labels.

    Raises:
        ManifestError: the graph is not right on this processor.
    """
    predictor = Predictor.load(package.with_graph(precision), precision=precision, cache=False)
    found: dict[str, list[list[float]]] = {}
    for mode in MODES:
        predictions = predictor.predict_rows(example_rows(mode), batch_size=1, workers=1, on_error="stop")
        found[mode] = [
            [round(prediction.probabilities[label], 6) for label in predictor.labels]
            for prediction in predictions
            if isinstance(prediction, Prediction)
        ]
    return found


def describe(package: ModelPackage) -> dict[str, Any]:
    """Return which package this is about: what has to be the same for its probabilities to be."""
    manifest = package.manifest
    return {
        "model": manifest.title,
        "sha256": {name: spec.sha256 for name, spec in manifest.files.items() if not name.endswith(".md")},
        "thresholds": {label.name: label.threshold for label in manifest.labels},
    }


def main(output: Path) -> None:
    """Write the file.

    Raises:
        SystemExit: a graph of the package cannot run on this processor.
    """
    package = load_package(RELEASED)
    if lacking := set(package.manifest.precisions) - set(runnable_precisions(package.manifest)):
        sys.exit(
            f"{lacking.pop()} needs VNNI or the ARM dot product, which this processor lacks; run it on one that has"
        )
    by_precision = {precision: probabilities(package, precision) for precision in package.manifest.precisions}
    text = json.dumps({**describe(package), "probabilities": by_precision}, indent=1)
    output.write_text(_rows_on_one_line(text) + "\n", encoding="utf-8")


def _rows_on_one_line(text: str) -> str:
    return re.sub(r"\[\s+([-\d.e,\s]+?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
