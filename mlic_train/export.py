"""From a trained model to a model package: graph, tokenizer, manifest, card; parity with PyTorch is the gate."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

from mlic_runtime.manifest import (
    CARD_NAME,
    MANIFEST_NAME,
    TOKENIZER_NAME,
    FileSpec,
    LabelSpec,
    Manifest,
    Metrics,
    ParitySpec,
    dump_manifest,
)
from mlic_runtime.package import load_package
from mlic_runtime.session import create_session

from .card import write_card
from .checkpoint import Trained, checkpoint_digest
from .errors import ExportError
from .files import atomic_folder
from .graph import OPSET, export_graph
from .parity import check_parity, check_rows
from .splits import Splits


def export_package(
    trained: Trained,
    output: Path,
    *,
    version: str = "0.1.0",
    splits: Splits | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Write a model package; what was at `output` is replaced only if everything held.

    Args:
        trained: the model.
        output: the package's folder.
        version: the package's version.
        splits: what to measure the graph on; None takes the metrics of the checkpoint.
        log: called with lines of progress.

    Raises:
        ExportError: `output` is something else than a model package, or the graph disagrees with PyTorch.
    """
    if output.exists() and not (output.is_dir() and (not any(output.iterdir()) or (output / MANIFEST_NAME).is_file())):
        raise ExportError(f"{output} exists and is not a model package; choose another --output")
    manifest, files = build_package(trained, version=version, splits=splits, log=log)
    with atomic_folder(output) as temporary:
        for name, content in files.items():
            (temporary / name).write_bytes(content)
        load_package(temporary).verify()
    return manifest


def build_package(
    trained: Trained, *, version: str, splits: Splits | None, log: Callable[[str], None]
) -> tuple[Manifest, dict[str, bytes]]:
    """What a model package holds, {file name: content} with manifest.json, once its graphs agree with PyTorch.

    Args:
        trained: the model.
        version: the package's version.
        splits: real rows to compare and measure the graphs on; None compares made-up rows only and takes the metrics
            of the checkpoint.
        log: called with lines of progress.

    Raises:
        ExportError: a graph disagrees with PyTorch.
        PackageError: a graph breaks the contract, or fails.
        DataError: the data has other labels than the model.
    """
    graphs = {"fp32": export_graph(trained.model, trained.config.model.max_length)}
    files: dict[str, bytes] = {}
    specs: dict[str, FileSpec] = {}
    parity: dict[str, ParitySpec] = {}
    metrics: dict[str, Mapping[str, Metrics]] = {}
    for precision, graph in graphs.items():
        session = create_session(graph)
        parity[precision] = check_parity(trained, session, precision)
        metrics[precision] = trained.state.metrics
        if splits is not None:
            agreements, metrics[precision] = check_rows(trained, session, splits, log, precision)
            parity[precision] = dataclasses.replace(parity[precision], splits=agreements)
        name = f"model.{precision}.onnx"
        files[name], specs[name] = graph, _file_spec(graph, precision)
    if trained.tokenizer is not None:
        files[TOKENIZER_NAME], specs[TOKENIZER_NAME] = trained.tokenizer, _file_spec(trained.tokenizer)
    thresholds = trained.state.thresholds
    model = trained.config.model
    manifest = Manifest(
        name=model.name,
        version=version,
        labels=tuple(LabelSpec(name, value) for name, value in zip(model.labels, thresholds, strict=True)),
        image=model.image_spec,
        text=model.text_spec,
        files=specs,
        metrics=metrics,
        parity=parity,
        provenance={
            **trained.config.provenance,
            "checkpoint_sha256": checkpoint_digest(trained.folder),
            "opset": OPSET,
            "onnxslim": metadata.version("onnxslim"),
        },
    )
    card = write_card(manifest, trained.config).encode()
    manifest = dataclasses.replace(manifest, files={**specs, CARD_NAME: _file_spec(card)})
    return manifest, {**files, CARD_NAME: card, MANIFEST_NAME: dump_manifest(manifest).encode()}


def _file_spec(content: bytes, precision: str | None = None) -> FileSpec:
    return FileSpec(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content), precision=precision)
