from collections.abc import Mapping

from mlic_runtime.manifest import Manifest, Metrics

from .checkpoint import RunConfig

_TITLES = {
    "samples_f1": "samples F1",
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
    "map": "mAP",
    "ece": "ECE",
    "rows": "rows",
    "false_labels_per_negative": "false labels per negative",
    "negatives": "negatives",
}


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
        f"{manifest.image.interpolation}.",
    ]
    if text is not None:
        lines[-1] += " An all-black picture means that there is none."
        lines.append(f"- Caption: at most {text.max_length} tokens of a vocabulary of {text.vocab_size}.")
    lines += ["", "## Metrics", ""]
    fixed = config.train.threshold_for.startswith("fixed")
    thresholds = "Thresholds are fixed." if fixed else "Thresholds were fitted on the validation split."
    for precision, splits in manifest.metrics.items():
        lines += [f"Graph `{precision}`. {thresholds}", "", *_table(splits), ""]
    lines += [
        "In brackets: 95 % bootstrap intervals over the rows. ECE: expected calibration error over all decisions.",
        "Rows with at least one label are scored; `negatives` are rows with none. `-picture-only` and `-caption-only`",
        "are the same rows with the other input left out, at the same thresholds.",
        "",
        "## Parity with PyTorch",
        "",
    ]
    for precision, parity in manifest.parity.items():
        lines.append(
            f"- `{precision}`: largest difference {parity.max_abs_difference:.2g} in logits over {parity.rows} rows in "
            f"{parity.shapes} (B, T) shapes, {parity.equal_decisions:.3%} equal decisions."
        )
        lines += [
            f"  - on `{split}`: {found.max_abs_difference:.2g} over {found.rows} rows, "
            f"{found.equal_decisions:.3%} equal decisions."
            for split, found in parity.splits.items()
        ]
    lines += ["", "## Provenance", ""]
    lines += [f"- {key}: {value}" for key, value in manifest.provenance.items()]
    lines += ["", "## Limits", "", *_limits(manifest), ""]
    return "\n".join(lines)


def _table(splits: Mapping[str, Metrics]) -> list[str]:
    rows = ["| split | " + " | ".join(_TITLES.values()) + " |", "|---" * (len(_TITLES) + 1) + "|"]
    for split, metrics in splits.items():
        rows.append(f"| {split} | " + " | ".join(_cell(metrics, name) for name in _TITLES) + " |")
    return rows


def _cell(metrics: Metrics, name: str) -> str:
    value = metrics.get(name)
    if value is None:
        return ""
    if isinstance(value, int) or float(value).is_integer():
        return str(value)
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    return f"{value:.4f}" if low is None or high is None else f"{value:.4f} [{low:.3f}, {high:.3f}]"


def _limits(manifest: Manifest) -> list[str]:
    limits = [
        "- It knows the labels above and nothing else; other things should get no label, but may.",
        "- The probabilities are those of pictures like the training data; elsewhere measure before you trust them.",
    ]
    if manifest.text is not None:
        limits.append("- A caption that does not belong to the picture misleads it: it believes what it reads.")
    return limits
