"""A graph model of TensorFlow.js, run by PyTorch: enough operations for convolutional detectors.

The format is a `model.json` with the nodes and, beside it, files with the weights:
https://github.com/tensorflow/tfjs/tree/master/tfjs-converter.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_DTYPES = {"float16": np.float16, "float32": np.float32, "int32": np.int32}
_CONVOLUTIONS = ("Conv2D", "_FusedConv2D", "DepthwiseConv2dNative", "FusedDepthwiseConv2dNative")


class TfjsGraph:
    """The nodes and weights of a graph model; weights that are stored as float16 become float32."""

    def __init__(self, file: Path) -> None:
        model = json.loads(file.read_text(encoding="utf-8"))
        self.nodes: dict[str, dict[str, Any]] = {node["name"]: node for node in model["modelTopology"]["node"]}
        self.weights: dict[str, Tensor] = {}
        for group in model["weightsManifest"]:
            content = b"".join((file.parent / name).read_bytes() for name in group["paths"])
            offset = 0
            for weight in group["weights"]:
                stored = _DTYPES[weight.get("quantization", {}).get("dtype") or weight["dtype"]]
                values = np.frombuffer(content, stored, int(np.prod(weight["shape"])), offset)
                offset += values.nbytes
                kind = np.float32 if weight["dtype"] == "float32" else np.int64
                self.weights[weight["name"]] = torch.from_numpy(values.reshape(weight["shape"]).astype(kind))
            if offset != len(content):
                raise ValueError(f"{file}: found {len(content)} bytes of weights, expected {offset}")

    def run(self, inputs: Mapping[str, Tensor], names: Sequence[str]) -> list[Tensor]:
        """Return the (first) output of the nodes `names`; batches of any size, though the graph was made for one.

        Raises:
            NotImplementedError: a node has another operation.
        """
        known: dict[str, list[Tensor]] = {name: [value] for name, value in inputs.items()}
        with torch.inference_mode():
            for name in names:
                todo = [name]
                while todo:
                    node = self.nodes[todo[-1]]
                    read = [_reference(text) for text in node.get("input", [])]
                    if missing := [other for other, _ in read if other not in known]:
                        todo += missing
                        continue
                    if todo.pop() not in known:
                        known[node["name"]] = self._compute(node, [known[other][index] for other, index in read])
        return [known[name][0] for name in names]

    def _compute(self, node: Mapping[str, Any], inputs: Sequence[Tensor]) -> list[Tensor]:
        operation, attributes = node["op"], node.get("attr", {})
        if operation == "Const":
            return [self.weights[node["name"]]]
        if operation == "SplitV":
            return list(torch.split(inputs[0], inputs[1].tolist(), int(inputs[2])))
        if operation in _CONVOLUTIONS:
            return [_convolve(operation, attributes, *inputs)]
        return [_simple(operation, attributes, inputs)]


def _reference(text: str) -> tuple[str, int]:
    name, _, index = text.partition(":")
    return name, int(index or 0)


def _integers(attributes: Mapping[str, Any], name: str) -> list[int]:
    return [int(value) for value in attributes.get(name, {}).get("list", {}).get("i", [])]


def _convolve(
    operation: str, attributes: Mapping[str, Any], values: Tensor, kernel: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Convolve (B, H, W, C) with (h, w, in, out), or each channel with its own (h, w, C, 1)."""
    planes, groups = values.permute(0, 3, 1, 2), 1
    if "Depthwise" in operation:
        groups = planes.shape[1]
        weight = kernel.permute(2, 3, 0, 1).reshape(-1, 1, *kernel.shape[:2])
    else:
        weight = kernel.permute(3, 2, 0, 1)
    strides = _integers(attributes, "strides")[1:3]
    dilations = _integers(attributes, "dilations")[1:3] or [1, 1]
    if _same(attributes):
        planes = _padded(planes, weight.shape[2:], strides, dilations, 0.0)
    planes = functional.conv2d(planes, weight, bias, strides, 0, dilations, groups)
    for text in attributes.get("fused_ops", {}).get("list", {}).get("s", []):
        name = base64.b64decode(text).decode()
        if name != "BiasAdd":
            planes = _simple(name, {}, [planes])
    return planes.permute(0, 2, 3, 1)


def _same(attributes: Mapping[str, Any]) -> bool:
    return base64.b64decode(attributes["padding"]["s"]) == b"SAME"


def _padded(
    planes: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], value: float
) -> Tensor:
    """Pad (B, C, H, W) as TensorFlow's "SAME" does: the odd row and column come last."""
    sides: list[int] = []
    for size, width, stride, dilation in zip(planes.shape[2:], kernel, strides, dilations, strict=True):
        missing = max((-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size, 0)
        sides = [missing // 2, missing - missing // 2, *sides]
    return functional.pad(planes, sides, value=value)


def _simple(operation: str, attributes: Mapping[str, Any], inputs: Sequence[Tensor]) -> Tensor:
    first = inputs[0]
    match operation:
        case "Identity":
            return first
        case "Add" | "AddV2":
            return first + inputs[1]
        case "Sub":
            return first - inputs[1]
        case "Mul":
            return first * inputs[1]
        case "Relu":
            return first.relu()
        case "Relu6":
            return first.clamp(0, 6)
        case "LeakyRelu":
            return functional.leaky_relu(first, attributes["alpha"]["f"])
        case "Sigmoid":
            return first.sigmoid()
        case "Transpose":
            return first.permute(*inputs[1].tolist())
        case "ConcatV2":
            return torch.cat(list(inputs[:-1]), int(inputs[-1]))
        case "Mean":
            return first.mean(inputs[1].flatten().tolist(), keepdim=attributes.get("keep_dims", {}).get("b", False))
        case "Reshape":
            shape = inputs[1].tolist()
            return first.reshape([len(first), *shape[1:]] if shape and shape[0] == 1 else shape)
        case "Pad" | "PadV2":
            sides = [side for pair in reversed(inputs[1].tolist()) for side in pair]
            return functional.pad(first, sides, value=float(inputs[2]) if len(inputs) > 2 else 0.0)
        case "MaxPool":
            planes = first.permute(0, 3, 1, 2)
            size, strides = _integers(attributes, "ksize")[1:3], _integers(attributes, "strides")[1:3]
            if _same(attributes):
                planes = _padded(planes, size, strides, [1, 1], -torch.inf)
            return functional.max_pool2d(planes, size, strides).permute(0, 2, 3, 1)
        case "ResizeBilinear":
            return _resized(attributes, first.permute(0, 3, 1, 2), inputs[1].tolist()).permute(0, 2, 3, 1)
    raise NotImplementedError(f"{operation} is not among the operations that this reader knows")


def _resized(attributes: Mapping[str, Any], planes: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (B, C, H, W); without either attribute the source of row i is i * H / height, TensorFlow 1's rule."""
    corners = attributes.get("align_corners", {}).get("b", False)
    if corners or attributes.get("half_pixel_centers", {}).get("b", False):
        return functional.interpolate(planes, list(size), mode="bilinear", align_corners=corners)
    for axis, length in zip((2, 3), size, strict=True):
        source = torch.arange(length) * (planes.shape[axis] / length)
        below = source.floor().long()
        above = (below + 1).clamp(max=planes.shape[axis] - 1)
        share = (source - below).reshape(-1, 1) if axis == 2 else source - below
        planes = planes.index_select(axis, below) * (1 - share) + planes.index_select(axis, above) * share
    return planes
