"""From a trained model to a model package: graph, tokenizer, manifest, card; parity with PyTorch is the gate."""

import dataclasses
import hashlib
import io
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

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
from mlic_runtime.session import ATTENTION_MASK, INPUT_IDS, LOGITS, PIXELS, create_session

from .card import write_card
from .checkpoint import Trained, checkpoint_digest
from .errors import ExportError
from .measure import measure_graph
from .models import Model
from .parity import check_parity, example_inputs
from .splits import Splits

OPSET = 17  # the first with LayerNormalization; ONNX Runtime Web and mobile read it
GRAPH_NAME = "model.fp32.onnx"


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
    graph = export_graph(trained.model, trained.config.model.max_length)
    session = create_session(graph)
    parity = check_parity(trained, session)
    metrics = trained.state.metrics if splits is None else measure_graph(trained, session, splits, log)
    files = {GRAPH_NAME: graph}
    if trained.tokenizer is not None:
        files[TOKENIZER_NAME] = trained.tokenizer
    manifest = _manifest(trained, files, parity, version, metrics)
    files[CARD_NAME] = write_card(manifest, trained.config).encode()
    listed = {**manifest.files, CARD_NAME: _file_spec(CARD_NAME, files[CARD_NAME])}
    manifest = dataclasses.replace(manifest, files=listed)
    files[MANIFEST_NAME] = dump_manifest(manifest).encode()

    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".tmp", dir=output.parent))
    try:
        temporary.chmod(0o755)
        for name, content in files.items():
            (temporary / name).write_bytes(content)
        load_package(temporary).verify()
        replace_folder(temporary, output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return manifest


def export_graph(model: Model, max_length: int) -> bytes:
    """The ONNX graph of the contract, as bytes: B and T dynamic, standard operators, weights inside.

    The TorchScript-based exporter is used on purpose: with an LSTM and attention in one graph its result passes the
    parity check at every shape; torch.export's specialises on the traced ones (pytorch#191855).
    """
    inputs = example_inputs(model, rows=2, tokens=min(5, max_length))
    names = [PIXELS, INPUT_IDS, ATTENTION_MASK][: len(inputs)]
    axes = {PIXELS: {0: "B"}, INPUT_IDS: {0: "B", 1: "T"}, ATTENTION_MASK: {0: "B", 1: "T"}, LOGITS: {0: "B"}}
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode():
        # What it warns of: that it is not the default, and that LSTMs may fail at other batches. Parity tells.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            inputs,
            buffer,  # type: ignore[arg-type] # a stream is accepted here, only the annotation says otherwise
            input_names=names,
            output_names=[LOGITS],
            dynamic_axes={name: axes[name] for name in (*names, LOGITS)},
            opset_version=OPSET,
            dynamo=False,
        )
    return buffer.getvalue()


def replace_folder(new: Path, old: Path) -> None:
    """Put the folder `new` in the place of `old`: two renames, and `old` is back if the second fails."""
    if not old.exists():
        new.rename(old)
        return
    aside = old.with_name(f".{old.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    old.rename(aside)
    try:
        new.rename(old)
    except OSError:
        aside.rename(old)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _manifest(
    trained: Trained,
    files: Mapping[str, bytes],
    parity: ParitySpec,
    version: str,
    metrics: Mapping[str, Metrics],
) -> Manifest:
    model, provenance = trained.config.model, dict(trained.config.provenance)
    provenance["checkpoint_sha256"] = checkpoint_digest(trained.folder)
    provenance["opset"] = OPSET
    thresholds = trained.state.thresholds
    return Manifest(
        name=model.name,
        version=version,
        labels=tuple(LabelSpec(name, value) for name, value in zip(model.labels, thresholds, strict=True)),
        image=model.image_spec,
        text=model.text_spec,
        files={name: _file_spec(name, content) for name, content in files.items()},
        metrics={"fp32": metrics},
        parity={"fp32": parity},
        provenance=provenance,
    )


def _file_spec(name: str, content: bytes) -> FileSpec:
    precision = "fp32" if name == GRAPH_NAME else None
    return FileSpec(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content), precision=precision)
