"""From a trained model to a model package: graph, tokenizer, manifest, card; parity with PyTorch is the gate."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from mlic_runtime.base.output_files import atomic_folder
from mlic_runtime.package.manifest import (
    CARD_NAME,
    MANIFEST_NAME,
    TOKENIZER_NAME,
    EvidenceSpec,
    FileSpec,
    LabelSpec,
    Manifest,
    Metrics,
    ParitySpec,
    dump_manifest,
)
from mlic_runtime.package.model_package import load_package
from mlic_train.data.splits import Splits
from mlic_train.errors import ExportError
from mlic_train.measure.collect import check_labels, collect_splits, run_graph, score
from mlic_train.measure.predict import Outputs
from mlic_train.runs.folder import TrainedModel, checkpoint_digest

from .card import write_card
from .faithfulness import faithfulness_on, summarise
from .graph import OPSET
from .latency import Latency, measure_graphs, recommend
from .operators import check_operators
from .parity import check_parity, check_rows
from .precisions import FULL, MAX_DROP, drop_error, largest_drop, make_graphs
from .quantization import session_for_parity


@dataclass(frozen=True)
class ExportOptions:
    """What to export.

    Attributes:
        version: the package's version.
        precisions: some of `manifest.PRECISIONS`; the first is the runtime's default where nothing speaks for another.
        max_drop: how many points (hundredths) of validation samples F1 a precision other than fp32 may cost.
        latency: measure the graphs' latency on this machine and recommend a precision by it. Measured latencies are the
            only part of a package that a second export of the model does not repeat.
        evidence: let the graphs say where in the picture and the caption a logit comes from, where the model can. It
            costs nothing in a run that does not fetch it.
    """

    version: str = "0.1.0"
    precisions: Sequence[str] = (FULL,)
    max_drop: float = MAX_DROP
    latency: bool = False
    evidence: bool = True


def export_package(
    trained: TrainedModel,
    output: Path,
    options: ExportOptions = ExportOptions(),  # frozen
    *,
    splits: Splits | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Write a model package to the folder `output`; a package there is replaced only if every check passes.

    For the other arguments and errors see `build_package`.

    Raises:
        ExportError: `output` exists and is not a model package.
    """
    if output.exists() and not (output.is_dir() and (not any(output.iterdir()) or (output / MANIFEST_NAME).is_file())):
        raise ExportError(f"{output} exists and is not a model package; choose another --output")
    manifest, files = build_package(trained, options, splits=splits, log=log)
    with atomic_folder(output) as temporary:
        for name, content in files.items():
            (temporary / name).write_bytes(content)
        load_package(temporary).verify()
    return manifest


def build_package(
    trained: TrainedModel, options: ExportOptions, *, splits: Splits | None, log: Callable[[str], None]
) -> tuple[Manifest, dict[str, bytes]]:
    """Build the files of a model package, {file name: content} with manifest.json, and check its graphs.

    Reduced precisions are fitted on the rows of `splits`, and the graphs compared and measured on them. Without
    `splits` made-up rows are compared, and the metrics are those of the checkpoint.

    Raises:
        ExportError: a graph disagrees with PyTorch, costs more F1 than it may, or needs operators that not every build
            of ONNX Runtime has.
        PackageError: a graph breaks the contract, or fails, or the runtime would refuse the tokenizer.
        DataError: the data has other labels than the model.
    """
    _ = trained.caption_tokenizer  # refuses a bad tokenizer before the work begins
    expected: dict[str, Outputs] = {}
    if splits is not None:
        check_labels(trained, splits)
        log("running PyTorch on val and test")
        expected = collect_splits(trained, trained.run, splits)
    explains = options.evidence and trained.model.explains
    if options.evidence and not explains:
        log(f"{trained.config.model.name} with these options cannot explain its logits: no evidence in the graphs")
    graphs = make_graphs(trained, options.precisions, splits, expected, options.max_drop, log, evidence=explains)
    parity: dict[str, ParitySpec] = {}
    metrics: dict[str, Mapping[str, Metrics]] = {}
    for precision, graph in graphs.items():
        check_operators(graph.content)
        session = session_for_parity(graph.content, precision)
        parity[precision] = check_parity(trained, session, precision)
        metrics[precision] = trained.state.metrics
        if splits is not None:
            log(f"measuring the {precision} graph on val and test")
            outputs = collect_splits(trained, run_graph(trained, session), splits)
            agreements = check_rows(trained, expected, outputs, precision)
            parity[precision] = dataclasses.replace(parity[precision], splits=agreements)
            drop = largest_drop(trained, expected, outputs)
            if precision != FULL and drop > options.max_drop:
                raise drop_error(precision, drop, options.max_drop)
            metrics[precision] = {key: score(rows, trained.state.thresholds) for key, rows in outputs.items()}
    faithfulness: Mapping[str, float | int] = {}
    if explains and splits is not None:
        first = options.precisions[0]
        faithfulness = faithfulness_on(trained, session_for_parity(graphs[first].content, first), splits.val.records)
        log(f"evidence of the {first} graph on {faithfulness['rows']} rows of val: {summarise(faithfulness)}")
    contents = {precision: graph.content for precision, graph in graphs.items()}
    latency: Latency = {}
    if options.latency:
        log("measuring latency; the machine should have nothing else to do")
        latency = measure_graphs(trained, contents, log)
    files = {f"model.{precision}.onnx": content for precision, content in contents.items()}
    specs = {f"model.{precision}.onnx": _file_spec(content, precision) for precision, content in contents.items()}
    if trained.tokenizer is not None:
        files[TOKENIZER_NAME], specs[TOKENIZER_NAME] = trained.tokenizer, _file_spec(trained.tokenizer)
    model = trained.config.model
    manifest = Manifest(
        name=model.name,
        version=options.version,
        labels=tuple(
            LabelSpec(name, value) for name, value in zip(model.labels, trained.state.thresholds, strict=True)
        ),
        image=model.image_spec,
        text=model.text_spec,
        files=specs,
        metrics=metrics,
        parity=parity,
        latency=latency,
        recommended=recommend(latency),
        evidence=EvidenceSpec(*trained.model.grid, faithfulness=faithfulness) if explains else None,
        provenance={
            **trained.config.published,
            "checkpoint_sha256": checkpoint_digest(trained.folder),
            "opset": OPSET,
            "onnxslim": metadata.version("onnxslim"),
            "onnxruntime": metadata.version("onnxruntime"),
            **{key: note for graph in graphs.values() for key, note in graph.notes.items()},
        },
    )
    card = write_card(manifest, trained.config).encode()
    manifest = dataclasses.replace(manifest, files={**specs, CARD_NAME: _file_spec(card)})
    return manifest, {**files, CARD_NAME: card, MANIFEST_NAME: dump_manifest(manifest).encode()}


def _file_spec(content: bytes, precision: str | None = None) -> FileSpec:
    return FileSpec(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content), precision=precision)
