from collections.abc import Mapping

from mlic_runtime.package.manifest import AgreementSpec, EvidenceSpec, Manifest, Metrics
from mlic_train.runs.folder import NEVER_SEEN, RunConfig

from .latency import by_provider

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
    """Return the model card in Markdown, made only from the manifest and the run's configuration."""
    model = config.model
    reads = "a picture and its caption (either may be missing)" if model.reads_captions else "a picture"
    note = str(manifest.provenance.get("data_note", "Not stated."))
    sections = {
        "Labels": [
            "| label | threshold |",
            "|---|---|",
            *(f"| {label.name} | {label.threshold:.3f} |" for label in manifest.labels),
        ],
        "Input": _inputs(manifest),
        "Intended use": _intended_use(manifest),
        "Graphs": _graphs(manifest),
        "Metrics": _metrics(manifest, config),
        "Parity with PyTorch": _parity(manifest),
        **({"Evidence": _evidence(manifest.evidence, manifest)} if manifest.evidence is not None else {}),
        "Training data and licences": [note],
        "Provenance": [f"- {key}: {value}" for key, value in manifest.provenance.items() if key != "data_note"],
        "How to reproduce": _reproduce(manifest),
        "Files": _hashes(manifest),
        "Limits": _limits(manifest),
    }
    lines = [
        f"# {manifest.name} {manifest.version}",
        "",
        f"A multi-label classifier that reads {reads} and gives each of {len(manifest.labels)} labels a probability.",
        "Run it with `mlic-infer picture.jpg" + (' "caption"`.' if model.reads_captions else "`."),
        "",
    ]
    for title, content in sections.items():
        lines += [f"## {title}", "", *content, ""]
    return "\n".join(lines)


def _inputs(manifest: Manifest) -> list[str]:
    image, text = manifest.image, manifest.text
    picture = f"- Picture: RGB, {image.width} x {image.height} pixels, `{image.resize}`, {image.interpolation}."
    if text is None:
        return [picture]
    return [
        f"{picture} An all-black picture means that there is none.",
        f"- Caption: at most {text.max_length} tokens of a vocabulary of {text.vocab_size}.",
    ]


def _metrics(manifest: Manifest, config: RunConfig) -> list[str]:
    fixed = config.train.threshold_for.startswith("fixed")
    thresholds = "Thresholds are fixed." if fixed else "Thresholds were fitted on the validation split."
    lines = []
    for precision, splits in manifest.metrics.items():
        lines += [f"Graph `{precision}`. {thresholds}", "", *_table(splits), ""]
    return [
        *lines,
        "In brackets: 95 % bootstrap intervals over the rows. ECE: expected calibration error over all decisions.",
        "Rows with at least one label are scored; `negatives` are rows with none. `-picture-only` and `-caption-only`",
        "are the same rows with the other input left out, at the same thresholds.",
    ]


def _table(splits: Mapping[str, Metrics]) -> list[str]:
    unknown = {"unknown": "unknown labels"} if any("unknown" in metrics for metrics in splits.values()) else {}
    titles = {**_TITLES, **unknown}
    rows = ["| split | " + " | ".join(titles.values()) + " |", "|---" * (len(titles) + 1) + "|"]
    for split, metrics in splits.items():
        rows.append(f"| {split} | " + " | ".join(_cell(metrics, name) for name in titles) + " |")
    if unknown:
        rows += [
            "",
            "Unknown labels (a row neither has nor lacks them) count nowhere; a row with some is no negative.",
        ]
    return rows


def _cell(metrics: Metrics, name: str) -> str:
    value = metrics.get(name)
    if value is None:
        return ""
    if isinstance(value, int) or float(value).is_integer():
        return str(value)
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    return f"{value:.4f}" if low is None or high is None else f"{value:.4f} [{low:.3f}, {high:.3f}]"


def _intended_use(manifest: Manifest) -> list[str]:
    what = "captioned pictures, pictures alone or captions alone" if manifest.text is not None else "pictures"
    return [
        f"Proposing labels for {what} like those it was trained on, for search and sorting, or for a person to check.",
        "Not for decisions about people, nor where a missed or a false label does harm.",
    ]


def _graphs(manifest: Manifest) -> list[str]:
    """Return a table with a line for each precision: size, F1 and latency."""
    providers = by_provider(manifest.latency)
    titles = ["precision", "MB", "val samples F1", "test samples F1", *(f"ms on {name}" for name in providers)]
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for precision in manifest.precisions:
        splits = manifest.metrics.get(precision, {})
        cells = [
            f"`{precision}`",
            f"{manifest.files[manifest.graph_name(precision)].bytes / 1e6:.2f}",
            *(_cell(splits.get(split, {}), "samples_f1") for split in ("val", "test")),
            *(f"{specs[precision].p50_ms:.1f}" if precision in specs else "" for specs in providers.values()),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    for name, specs in providers.items():
        spec = next(iter(specs.values()))
        lines += [
            "",
            f"Milliseconds on `{name}`: median of {spec.runs} runs of one picture, all graphs in turns, {spec.threads} "
            f"threads of {spec.machine}. `--precision auto` takes `{manifest.recommended[name]}` there, unless "
            "`mlic-bench --choose` finds another to be faster on the device.",
        ]
    return lines


def _parity(manifest: Manifest) -> list[str]:
    """Return a table with a line for each set of rows and a column for each precision."""
    specs = manifest.parity
    lines = [
        "Largest difference of a logit, and the share of equal decisions.",
        "",
        "| rows | " + " | ".join(f"`{precision}`" for precision in specs) + " |",
        "|---" * (len(specs) + 1) + "|",
    ]
    first = next(iter(specs.values()))
    checks: list[tuple[str, list[AgreementSpec]]] = [
        (f"{first.rows} made up, {first.shapes} (B, T) shapes", list(specs.values()))
    ]
    for split, agreement in first.splits.items():
        checks.append((f"{agreement.rows} of {split}", [spec.splits[split] for spec in specs.values()]))
    for name, agreements in checks:
        cells = [f"{agreement.max_abs_difference:.2g}, {agreement.equal_decisions:.3%}" for agreement in agreements]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _evidence(evidence: EvidenceSpec, manifest: Manifest) -> list[str]:
    what = " and each word" if manifest.text is not None else ""
    lines = [
        f"The graphs say what each of {evidence.height} x {evidence.width} places{what} contributes to a logit, as",
        "`mlic-infer picture.jpg --explain page.html` shows. The parts are exact in the features that the last layers",
        "read. These features have also seen their surroundings.",
    ]
    measured = evidence.faithfulness
    if not measured.get("rows"):
        return [*lines, "", "Faithfulness was not measured: that needs data in which labels are predicted."]
    lines += [
        "",
        f"Faithfulness of `{manifest.precisions[0]}` on {measured['rows']} rows of val: by how much the logit of a "
        "predicted label falls",
        "without the best fifth of the places or words, without as many random ones, and the rank correlation of the",
        f"evidence with occlusion ({measured['occluded_rows']} rows).",
        "",
        "| | predicted labels | best fifth | random fifth | correlation |",
        "|---|---|---|---|---|",
    ]
    for part, title in (("picture", "places"), ("caption", "words")):
        if f"{part}_deletion" in measured:
            correlation = measured.get(f"{part}_occlusion_correlation")
            cells = [
                title,
                str(measured[f"{part}_labels"]),
                f"{measured[f'{part}_deletion']:.2f}",
                f"{measured[f'{part}_random']:.2f}",
                "" if correlation is None else f"{correlation:.2f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def _reproduce(manifest: Manifest) -> list[str]:
    checkpoint = str(manifest.provenance.get("checkpoint_sha256", ""))[:12]
    with_data = any(parity.splits for parity in manifest.parity.values())
    options = [
        f"--model {manifest.name}",
        *(["--data DATA"] if with_data else []),
        f"--precision {','.join(manifest.precisions)}",
        *(["--latency"] if manifest.latency else []),
        f"--package-version {manifest.version}",
    ]
    return [
        f"From the checkpoint whose sha256 starts with {checkpoint}"
        + (" and the data of the fingerprint above:" if with_data else ":"),
        "",
        "```",
        " ".join(["mlic-export", *options]),
        "```",
        "",
        "The same versions on the same kind of machine give the same bytes, but for measured milliseconds.",
    ]


def _hashes(manifest: Manifest) -> list[str]:
    """Return a table of every file except this one and manifest.json, which lists them all."""
    lines = ["| file | bytes | sha256 |", "|---|---|---|"]
    return lines + [f"| {name} | {spec.bytes} | `{spec.sha256}` |" for name, spec in manifest.files.items()]


def _limits(manifest: Manifest) -> list[str]:
    limits = [
        "- It knows the labels above and nothing else; other things should get no label, but may.",
        "- The probabilities are those of pictures like the training data; elsewhere measure before you trust them.",
    ]
    if manifest.provenance.get(NEVER_SEEN) == "pictures":
        limits.append("- It never saw a picture in training: it reads captions, and a picture changes nothing.")
    if manifest.text is not None:
        limits.append("- A caption that does not belong to the picture misleads it: it believes what it reads.")
    return limits
