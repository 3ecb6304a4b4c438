"""A trained model in a Triton model repository: REPOSITORY/NAME with config.pbtxt, labels.txt and 1/model.onnx.

The form is that of NVIDIA's documentation (docs/user_guide/model_repository.md and model_configuration.md of
triton-inference-server/server) and of the message ModelConfig (protobuf/model_config.proto of
triton-inference-server/common).

Triton runs the graph and nothing around it. What a client needs for the rest is here too: `parameters` of the
configuration, which GET /v2/models/NAME/config returns, hold as JSON the thresholds {label: probability} and how a
picture and a caption are prepared; tokenizer.json lies beside. The output is logits: a label is predicted where
1 / (1 + exp(-logit)) reaches its threshold.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import onnx

from mlic_runtime.package.manifest import CARD_NAME, TOKENIZER_NAME, Manifest
from mlic_train.base.files import atomic_folder
from mlic_train.data.splits import Splits
from mlic_train.errors import ExportError
from mlic_train.runs.checkpoint import Trained

from .package import ExportOptions, build_package
from .parity import SHAPES

CONFIG_NAME = "config.pbtxt"
LABELS_NAME = "labels.txt"
GRAPH_NAME = "1/model.onnx"  # version 1, and the file name that Triton expects of ONNX Runtime's models

MAX_BATCH_SIZE = max(batch for batch, _ in SHAPES)  # the largest batch that parity was checked at
_DATA_TYPES: Mapping[int, str] = {
    onnx.TensorProto.UINT8: "TYPE_UINT8",
    onnx.TensorProto.INT64: "TYPE_INT64",
    onnx.TensorProto.FLOAT: "TYPE_FP32",
}


def export_triton(
    trained: Trained,
    repository: Path,
    options: ExportOptions = ExportOptions(),  # noqa: B008 # frozen
    *,
    splits: Splits | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Write a model into a Triton model repository; what was there of its name is replaced only if everything held.

    Args:
        trained: the model.
        repository: the folder that Triton is started with; other models in it are left alone.
        options: what to write: one precision, and the version, a parameter of the configuration (Triton's own is 1).
        splits: see `export_package`.
        log: called with lines of progress.

    Returns:
        The manifest that the model package would have.

    Raises:
        ExportError: `repository`/NAME is something else than what this writes, or the graph disagrees with PyTorch, or
            there is more than one precision: Triton's form has one graph.
    """
    if len(options.precisions) != 1:
        raise ExportError(f"a Triton model has one graph; give one --precision, not {', '.join(options.precisions)}")
    folder = repository / trained.config.model.name
    _check_replaceable(folder)
    manifest, package = build_package(trained, options, splits=splits, log=log)
    files = _model_files(manifest, package)
    with atomic_folder(folder) as temporary:
        for name, content in files.items():
            (temporary / name).parent.mkdir(exist_ok=True)
            (temporary / name).write_bytes(content)
    return manifest


def _model_files(manifest: Manifest, package: Mapping[str, bytes]) -> dict[str, bytes]:
    """From a model package's files, {name: content}, to those of the model's folder, {path below it: content}."""
    graph = package[manifest.graph_name(manifest.precisions[0])]
    files = {
        CONFIG_NAME: config_pbtxt(manifest, graph).encode(),
        LABELS_NAME: "".join(f"{label.name}\n" for label in manifest.labels).encode(),
        GRAPH_NAME: graph,
    }
    return files | {name: package[name] for name in (TOKENIZER_NAME, CARD_NAME) if name in package}


def config_pbtxt(manifest: Manifest, graph: bytes) -> str:
    """The configuration in protobuf's text format; names, types and sides of inputs and outputs are the graph's own.

    Requests of one length T are batched together; Triton waits for none (`dynamic_batching` without a delay). An
    instance runs on every GPU, or on the CPU where there is none (KIND_AUTO).
    """
    thresholds = {label.name: label.threshold for label in manifest.labels}
    parameters: dict[str, str] = {
        "model_version": manifest.version,
        "checkpoint_sha256": str(manifest.provenance["checkpoint_sha256"]),
        "thresholds": _json(thresholds),
        "image": _json(dataclasses.asdict(manifest.image)),
    }
    if manifest.text is not None:
        parameters["text"] = _json(dataclasses.asdict(manifest.text))
    described = onnx.load_from_string(graph).graph
    return "\n".join(
        [
            f"name: {_quoted(manifest.name)}",
            'platform: "onnxruntime_onnx"',
            'backend: "onnxruntime"',
            f"max_batch_size: {MAX_BATCH_SIZE}",
            *_tensors("input", described.input),
            *_tensors("output", described.output, f"label_filename: {_quoted(LABELS_NAME)}"),
            "dynamic_batching { }",
            "instance_group [ { count: 1 kind: KIND_AUTO } ]",
            *(
                f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}"
                for key, value in parameters.items()
            ),
            "",
        ]
    )


def _tensors(field: str, values: Iterable[onnx.ValueInfoProto], additional: str = "") -> list[str]:
    """A block for each tensor; the axis B goes without saying (`max_batch_size`), another dynamic one is -1."""
    blocks = []
    for value in values:
        tensor = value.type.tensor_type
        sides = ", ".join(str(side.dim_value) if side.HasField("dim_value") else "-1" for side in tensor.shape.dim[1:])
        settings = [f"name: {_quoted(value.name)}", f"data_type: {_DATA_TYPES[tensor.elem_type]}", f"dims: [ {sides} ]"]
        blocks.append("\n  ".join([f"{field} {{", *settings, *filter(None, [additional])]) + "\n}")
    return blocks


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _quoted(text: str) -> str:
    """A string of the text format; what it holds is printable, so that JSON's escapes are the same as protobuf's."""
    return json.dumps(text, ensure_ascii=False)


def _check_replaceable(folder: Path) -> None:
    if not folder.exists():
        return
    ours = {CONFIG_NAME, LABELS_NAME, GRAPH_NAME, "1", TOKENIZER_NAME, CARD_NAME}
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    strange = sorted(found - ours)
    if not folder.is_dir() or strange or (found and CONFIG_NAME not in found):
        reason = f"holds {strange[0]!r}" if strange else f"is no folder with {CONFIG_NAME}"
        raise ExportError(f"{folder} {reason}, which this export did not write; choose another --output")
