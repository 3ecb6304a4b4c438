"""Draws samples F1 on test against the time of one run of the released hybrid, by precision and kind of input.

python scripts/pictures/accuracy.py > docs/pictures/accuracy.svg

Both are read from the manifest, which `mlic-export --data --latency` wrote.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import svg

MANIFEST = Path(__file__).parents[2] / "exported" / "hybrid" / "manifest.json"
_MODES = (("test", "picture and caption", "#0969da"), ("test-caption-only", "caption only", "#bc4c00"))
_MODES += (("test-picture-only", "picture only", "#1a7f37"),)
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 560, 50, 350
_WIDTH_OF_A_NAME = 70


def accuracy() -> str:
    """Return the drawing."""
    manifest = json.loads(MANIFEST.read_text("utf-8"))
    latency = {name: each["cpu"]["p50_ms"] for name, each in manifest["latency"].items() if "cpu" in each}
    machine = next(iter(manifest["latency"].values()))["cpu"]
    widest = 5 * (max(latency.values()) // 5 + 1)
    low, high = 0.70, 0.95

    def x(ms: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * ms / widest

    def y(f1: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * (f1 - low) / (high - low)

    parts = [
        svg.text(
            20, 22, f"{manifest['name']} {manifest['version']}: samples F1 on test (bar: 95 % interval)", bold=True
        ),
        svg.text(20, _BOTTOM + 56, f"{machine['machine']}, {machine['threads']} threads", size=11, colour=svg.GREY),
        svg.text((_LEFT + _RIGHT) / 2, _BOTTOM + 34, "milliseconds for one picture, median", size=12, middle=True),
    ]
    for step in range(round((high - low) / 0.05) + 1):
        value = low + 0.05 * step
        parts.append(f'<line x1="{_LEFT}" y1="{y(value):.1f}" x2="{_RIGHT}" y2="{y(value):.1f}" stroke="#d8dee4"/>')
        parts.append(svg.text(_LEFT - 36, round(y(value) + 4, 1), f"{value:.2f}", size=11, colour=svg.GREY))
    for ms in range(0, int(widest) + 1, 5):
        parts.append(svg.text(round(x(ms), 1), _BOTTOM + 16, str(ms), size=11, colour=svg.GREY, middle=True))
    for precision, ms in latency.items():
        for number, (split, _, colour) in enumerate(_MODES):
            place = round(x(ms) + 9 * (number - 1), 1)  # side by side, or the bars would hide one another
            of = manifest["metrics"][precision][split]
            bar = f'x1="{place}" y1="{y(of["samples_f1_low"]):.1f}" x2="{place}" y2="{y(of["samples_f1_high"]):.1f}"'
            parts.append(f'<line {bar} stroke="{colour}" stroke-opacity="0.4" stroke-width="3"/>')
            parts.append(f'<circle cx="{place}" cy="{y(of["samples_f1"]):.1f}" r="5" fill="{colour}"/>')
    for names, place in _together({name: x(ms) for name, ms in latency.items()}):
        parts.append(svg.text(round(place, 1), _TOP - 8, ", ".join(names), size=12, bold=True, middle=True))
    for number, (_, name, colour) in enumerate(_MODES):
        parts.append(f'<circle cx="{_RIGHT + 26}" cy="{_TOP + 20 + 24 * number}" r="5" fill="{colour}"/>')
        parts.append(svg.text(_RIGHT + 40, _TOP + 24 + 24 * number, name, size=12))
    return svg.page(740, 420, "Accuracy against time", parts)


def _together(places: dict[str, float]) -> Iterator[tuple[list[str], float]]:
    """Yield names and their mean place, from left to right; names that would lie on each other share one."""
    names: list[str] = []
    for name in sorted(places, key=places.__getitem__):
        if names and places[name] - places[names[-1]] > _WIDTH_OF_A_NAME:
            yield names, sum(map(places.__getitem__, names)) / len(names)
            names = []
        names.append(name)
    yield names, sum(map(places.__getitem__, names)) / len(names)


if __name__ == "__main__":
    print(accuracy(), end="")
