"""The Open Inference Protocol (V2, https://github.com/kserve/open-inference-protocol): tensors in JSON.

Inputs are `picture`, BYTES [N], each the bytes of a picture file in base64, and `caption`, BYTES [N], each a text; ""
in either means that there is none. Outputs are `probabilities`, FP32 [N, L], `predicted`, BOOL [N, L], and `labels`,
BYTES [L], the names of the columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mlic_runtime.base.typed_json import MAY_BE_MISSING, TypedJsonError, build, shown
from mlic_runtime.errors import InputError
from mlic_runtime.package.manifest import Manifest
from mlic_runtime.predict.prediction import Prediction
from mlic_runtime.rows.row import Row

from .errors import RequestError
from .requests import check_inputs, decode_picture, parse_json_object
from .settings import ServeSettings

PICTURE, CAPTION = "picture", "caption"
PROBABILITIES, PREDICTED, LABELS = "probabilities", "predicted", "labels"
OUTPUTS = (PROBABILITIES, PREDICTED, LABELS)


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    datatype: str
    data: Any
    parameters: Any = field(default=None, metadata=MAY_BE_MISSING)


@dataclass(frozen=True, slots=True)
class _Output:
    name: str
    parameters: Any = field(default=None, metadata=MAY_BE_MISSING)


@dataclass(frozen=True, slots=True)
class _Request:
    inputs: tuple[_Tensor, ...]
    id: str | None = field(default=None, metadata=MAY_BE_MISSING)
    parameters: Any = field(default=None, metadata=MAY_BE_MISSING)
    outputs: tuple[_Output, ...] | None = field(default=None, metadata=MAY_BE_MISSING)


@dataclass(frozen=True, slots=True)
class InferRequest:
    """An inference request.

    Attributes:
        rows: N inputs.
        id: of the client, or None.
        outputs: the names of those that are wanted.
    """

    rows: tuple[Row, ...]
    id: str | None
    outputs: tuple[str, ...]


def parse_infer(body: bytes, settings: ServeSettings, *, reads_caption: bool) -> InferRequest:
    """Parse the body of `POST /v2/models/NAME/infer`.

    Raises:
        RequestError: it is not what the protocol or this model takes.
    """
    data = parse_json_object(body)
    try:
        asked: _Request = build(_Request, data, "request")
    except TypedJsonError as error:
        raise RequestError(str(error)) from None
    known = (PICTURE, CAPTION) if reads_caption else (PICTURE,)
    found: dict[str, list[str]] = {}
    for tensor in asked.inputs:
        if tensor.name not in known or tensor.name in found:
            what = "twice the input" if tensor.name in found else "the input"
            raise RequestError(f"found {what} {shown(tensor.name)}; this model has: {', '.join(known)}")
        found[tensor.name] = _texts(tensor)
    if not found:
        raise RequestError(f"found no input; this model has: {', '.join(known)}")
    counts = {name: len(texts) for name, texts in found.items()}
    if len(set(counts.values())) > 1:
        raise RequestError(f"found inputs of different lengths: {counts}")
    count = next(iter(counts.values()))
    check_inputs(count, settings)
    for output in asked.outputs or ():
        if output.name not in OUTPUTS:
            raise RequestError(f"found the output {shown(output.name)}; this model has: {', '.join(OUTPUTS)}")
    pictures = found.get(PICTURE, [""] * count)
    captions = found.get(CAPTION, [""] * count)
    rows = tuple(
        Row(image=decode_picture(picture, f"{PICTURE}[{index}]") if picture else None, caption=caption or None)
        for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True))
    )
    outputs = OUTPUTS if not asked.outputs else tuple(dict.fromkeys(output.name for output in asked.outputs))
    return InferRequest(rows, asked.id, outputs)


def _texts(tensor: _Tensor) -> list[str]:
    name = shown(tensor.name)
    if tensor.datatype != "BYTES":
        raise RequestError(f"the input {name} has the datatype BYTES, found {shown(tensor.datatype)}")
    data = tensor.data
    if not isinstance(data, list) or not all(isinstance(text, str) for text in data):
        raise RequestError(f"the data of the input {name} must be a list of texts")
    if tensor.shape not in ((len(data),), (len(data), 1)):
        raise RequestError(
            f"the input {name} has {len(data)} elements; expected the shape [{len(data)}], found {list(tensor.shape)}"
        )
    return data


def infer_response(
    manifest: Manifest, asked: InferRequest, results: Sequence[Prediction | InputError]
) -> dict[str, Any]:
    """Return the answer.

    Raises:
        InputError: the first input that cannot be predicted: the protocol has no place for single errors.
    """
    labels = [label.name for label in manifest.labels]
    probabilities: list[float] = []
    predicted: list[bool] = []
    for index, result in enumerate(results):
        if isinstance(result, InputError):
            raise type(result)(f"input {index}: {result}")
        probabilities += [result.probabilities[label] for label in labels]
        chosen = set(result.labels)
        predicted += [label in chosen for label in labels]
    shape = [len(results), len(labels)]
    outputs = {
        PROBABILITIES: {"name": PROBABILITIES, "datatype": "FP32", "shape": shape, "data": probabilities},
        PREDICTED: {"name": PREDICTED, "datatype": "BOOL", "shape": shape, "data": predicted},
        LABELS: {"name": LABELS, "datatype": "BYTES", "shape": [len(labels)], "data": labels},
    }
    answer: dict[str, Any] = {"model_name": manifest.name, "model_version": manifest.version}
    if asked.id is not None:
        answer["id"] = asked.id
    return {**answer, "outputs": [outputs[name] for name in asked.outputs]}


def model_metadata(manifest: Manifest) -> dict[str, Any]:
    """Return the metadata of the model."""
    labels = len(manifest.labels)
    inputs = [PICTURE] if manifest.text is None else [PICTURE, CAPTION]
    return {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in inputs],
        "outputs": [
            {"name": PROBABILITIES, "datatype": "FP32", "shape": [-1, labels]},
            {"name": PREDICTED, "datatype": "BOOL", "shape": [-1, labels]},
            {"name": LABELS, "datatype": "BYTES", "shape": [labels]},
        ],
    }
