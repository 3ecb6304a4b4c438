"""A trained model in a Triton model repository: REPOSITORY/NAME with config.pbtxt, labels.txt and 1/model.onnx.

The format is that of NVIDIA's documentation (docs/user_guide/model_repository.md and model_configuration.md of
triton-inference-server/server) and of the message ModelConfig (protobuf/model_config.proto of
triton-inference-server/common).

Triton runs the graph and nothing around it; the client does the rest. For that the configuration's `parameters`, which
GET /v2/models/NAME/config returns, contain the thresholds {label: probability} and the preprocessing of pictures and
captions as JSON; tokenizer.json is beside them. The output is logits: a label is predicted where
1 / (1 + exp(-logit)) reaches its threshold.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import onnx

from mlic_runtime.base.output_files import atomic_folder
from mlic_runtime.graph.session import LOGITS
from mlic_runtime.package.manifest import CARD_NAME, TOKENIZER_NAME, Manifest
from mlic_train.data.splits import Splits
from mlic_train.errors import ExportError
from mlic_train.runs.folder import TrainedModel

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
    trained: TrainedModel,
    repository: Path,
    options: ExportOptions = ExportOptions(),  # noqa: B008 # frozen
    *,
    splits: Splits | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Write a model into a Triton model repository; an older model of its name is replaced only if every check passes.

    `repository` is the folder that Triton is started with; other models in it stay as they are. The options have one
    precision; their version becomes a parameter of the configuration (Triton's own is 1). For the other arguments and
    errors see `build_package`. The result is the manifest of the equivalent model package.

    Raises:
        ExportError: `repository`/NAME was not written by this export, or the graph disagrees with PyTorch, or there is
            more than one precision: a Triton model has one graph.
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
    """Make the files of the model's folder, {path below it: content}, from those of a model package."""
    graph = package[manifest.graph_name(manifest.precisions[0])]
    files = {
        CONFIG_NAME: config_pbtxt(manifest, graph).encode(),
        LABELS_NAME: "".join(f"{label.name}\n" for label in manifest.labels).encode(),
        GRAPH_NAME: graph,
    }
    return files | {name: package[name] for name in (TOKENIZER_NAME, CARD_NAME) if name in package}


def config_pbtxt(manifest: Manifest, graph: bytes) -> str:
    """Return the configuration in protobuf's text format; names, types and shapes are those of the graph.

    Triton batches requests of one length T without waiting for more (`dynamic_batching` without a delay). One instance
    runs on every GPU, or on the CPU if there is none (KIND_AUTO).
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
            f"name: {_json(manifest.name)}",
            'platform: "onnxruntime_onnx"',
            'backend: "onnxruntime"',
            f"max_batch_size: {MAX_BATCH_SIZE}",
            *_tensors("input", described.input),
            *_tensors("output", described.output, {LOGITS: f"label_filename: {_json(LABELS_NAME)}"}),
            "dynamic_batching { }",
            "instance_group [ { count: 1 kind: KIND_AUTO } ]",
            *(
                f"parameters {{ key: {_json(key)} value {{ string_value: {_json(value)} }} }}"
                for key, value in parameters.items()
            ),
            "",
        ]
    )


def _tensors(
    field: str, values: Iterable[onnx.ValueInfoProto], additional: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """Return a block for each tensor; the axis B is left out (see `max_batch_size`), another dynamic axis is -1.

    `additional` is {name of a tensor: one more setting}.
    """
    blocks = []
    for value in values:
        tensor = value.type.tensor_type
        sides = ", ".join(str(side.dim_value) if side.HasField("dim_value") else "-1" for side in tensor.shape.dim[1:])
        settings = [f"name: {_json(value.name)}", f"data_type: {_DATA_TYPES[tensor.elem_type]}", f"dims: [ {sides} ]"]
        blocks.append("\n  ".join([f"{field} {{", *settings, *filter(None, [additional.get(value.name)])]) + "\n}")
    return blocks


def _json(value: object) -> str:
    """Write JSON; the string of a printable text is also one of protobuf's text format, with equal escapes."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _check_replaceable(folder: Path) -> None:
    if not folder.exists():
        return
    ours = {CONFIG_NAME, LABELS_NAME, GRAPH_NAME, "1", TOKENIZER_NAME, CARD_NAME}
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    others = sorted(names - ours)
    if not folder.is_dir() or others or (names and CONFIG_NAME not in names):
        reason = f"holds {others[0]!r}" if others else f"is no folder with {CONFIG_NAME}"
        raise ExportError(f"{folder} {reason}, which this export did not write; choose another --output")
