"""Draws the hybrid: what a picture and a caption go through until there are labels.

python scripts/pictures/model.py > docs/pictures/model.svg

Layers, heads and widths are those of the released package's checkpoint.
"""

import json
from pathlib import Path

import svg

CONFIG = Path(__file__).parents[2] / "mlic_train" / "released" / "hybrid" / "config.json"


def model() -> str:
    """Return the drawing."""
    config = json.loads(CONFIG.read_text("utf-8"))["model"]
    size, labels = config["image_size"], len(config["labels"])
    encoder = f"{config['num_layers']} layers, {config['num_heads']} heads, width {config['width']}"
    parts: list[str] = []

    def block(x: float, y: float, width: float, title: str, below: str, fill: str) -> None:
        parts.append(svg.box(x, y, width, 54, fill))
        parts.append(svg.text(x + width / 2, y + 23, title, bold=True, middle=True))
        parts.append(svg.text(x + width / 2, y + 41, below, size=11, colour=svg.GREY, middle=True))

    block(20, 40, 150, "picture", f"uint8 {size} x {size} x 3", svg.PLAIN)
    block(210, 40, 170, config["backbone"].removeprefix("tf_"), "features of each place", svg.BLUE)
    block(420, 40, 160, "picture logits", f"one of each of {labels} labels", svg.BLUE)
    block(20, 240, 150, "caption", "byte-pair tokens", svg.PLAIN)
    block(210, 240, 170, "bidirectional LSTM", "a state of each token", svg.ORANGE)
    block(420, 240, 160, "caption logits", "attention by label", svg.ORANGE)
    block(420, 140, 160, "label queries", "from both logits", svg.GREEN)
    block(620, 140, 190, "Transformer encoder", encoder, svg.GREEN)
    block(850, 140, 110, "sum", "late fusion + it", svg.PLAIN)
    block(1000, 140, 150, "calibration", "by mode, in the graph", svg.PLAIN)
    block(1190, 140, 150, "labels", "a threshold of each", svg.PLAIN)
    for x1, y1, x2, y2 in (
        (170, 67, 208, 67),
        (380, 67, 418, 67),
        (170, 267, 208, 267),
        (380, 267, 418, 267),
        (500, 94, 500, 138),
        (500, 240, 500, 196),
        (580, 167, 618, 167),
        (810, 167, 848, 167),
        (960, 167, 998, 167),
        (1150, 167, 1188, 167),
    ):
        parts.append(svg.arrow(x1, y1, x2, y2))
    parts.append(svg.arrow(580, 67, 880, 138))
    parts.append(svg.arrow(580, 267, 880, 196))
    parts.append(svg.arrow(340, 240, 640, 196))
    parts.append(
        svg.text(
            20,
            22,
            "hybrid: a row may lack the picture or the caption; without a caption it is the picture's logits alone.",
            colour=svg.GREY,
        )
    )
    return svg.page(1360, 310, "The hybrid model", parts)


if __name__ == "__main__":
    print(model(), end="")
