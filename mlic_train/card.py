from collections.abc import Mapping

from mlic_runtime.manifest import Manifest, Metrics

from .checkpoint import RunConfig

_COLUMNS = ("samples_f1", "micro_f1", "macro_f1", "map", "rows", "false_labels_per_negative", "negatives")
_TITLES = ("samples F1", "micro F1", "macro F1", "mAP", "rows", "false labels per negative", "negatives")


def write_card(manifest: Manifest, config: RunConfig) -> str:
    """The model card in Markdown, made from the manifest and the run's configuration and from nothing else."""
    model = config.model
    reads = "a picture and its caption (either may be missing)" if model.reads_captions else "a picture"
    text = manifest.text
    lines = [
        f"# {manifest.name} {manifest.version}",
        "",
        f"A multi-label classifier that reads {reads} and gives each of {len(manifest.labels)} labels a probability.",
        "Run it with `mlic-infer picture.jpg" + (' "caption"`.' if model.reads_captions else "`."),
        "",
        "## Labels",
        "",
        "| label | threshold |",
        "|---|---|",
        *(f"| {label.name} | {label.threshold:.3f} |" for label in manifest.labels),
        "",
        "## Input",
        "",
        f"- Picture: RGB, {manifest.image.width} x {manifest.image.height} pixels, `{manifest.image.resize}`, "
        f"{manifest.image.interpolation}; an all-black picture means that there is none.",
    ]
    if text is not None:
        lines.append(f"- Caption: at most {text.max_length} tokens of a vocabulary of {text.vocab_size}.")
    lines += ["", "## Metrics", ""]
    for precision, splits in manifest.metrics.items():
        lines += [f"Graph `{precision}`. Thresholds were fitted on the validation split.", "", *_table(splits), ""]
    lines += [
        "Rows with at least one label are scored; `negatives` are rows with none. `-picture-only` and `-caption-only`",
        "are the same rows with the other input left out, at the same thresholds.",
        "",
        "## Parity with PyTorch",
        "",
    ]
    for precision, parity in manifest.parity.items():
        lines.append(
            f"- `{precision}`: largest difference {parity.max_abs_difference:.2g} in logits over {parity.rows} rows in "
            f"{parity.shapes} (B, T) shapes, {parity.equal_decisions:.1%} equal decisions."
        )
    lines += ["", "## Provenance", ""]
    lines += [f"- {key}: {value}" for key, value in manifest.provenance.items()]
    lines += ["", "## Limits", "", *_limits(manifest), ""]
    return "\n".join(lines)


def _table(splits: Mapping[str, Metrics]) -> list[str]:
    rows = ["| split | " + " | ".join(_TITLES) + " |", "|---" * (len(_TITLES) + 1) + "|"]
    for split, metrics in splits.items():
        cells = [_cell(metrics.get(column)) for column in _COLUMNS]
        rows.append(f"| {split} | " + " | ".join(cells) + " |")
    return rows


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) or float(value).is_integer() else f"{value:.4f}"


def _limits(manifest: Manifest) -> list[str]:
    limits = [
        "- It knows the labels above and nothing else; other things should get no label, but may.",
        "- The probabilities are those of pictures like the training data; elsewhere measure before you trust them.",
    ]
    if manifest.text is not None:
        limits.append("- A caption that does not belong to the picture misleads it: it believes what it reads.")
    return limits
