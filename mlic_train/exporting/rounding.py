"""Rounding of a convolution's weights so that its output changes least on real rows.

Weights that are rounded one by one change the output by the sum of their errors. Here each is rounded in turn, and the
weights that are not rounded yet make up for its error as far as their inputs go together with its own. Frantar et al.
2023 ("GPTQ", arXiv:2210.17323) have the algorithm, for language models.

The mean of the output needs no weights: the bias takes back what rounding changes in it. So what counts of the inputs
is their covariance, not their second moment.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

_SHARES = np.arange(1.0, 0.59, -0.05)  # of a channel's largest weight: where weights may be cut
_DAMPING = 0.01  # of the mean variance of the inputs, added to each: rows are few, and no inverse may explode
MOST_INPUTS = 5_000  # of an output value: their covariance takes 8 bytes times its square

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Window:
    """What a convolution reads for one output value: `kernel`, `strides`, `dilations` and `pads`, as ONNX has them."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]
    groups: int

    @classmethod
    def of(cls, node: onnx.NodeProto, weight_shape: tuple[int, ...]) -> "Window | None":
        """Return that of a convolution; None where it is not over two axes, or pads in a way of its own."""
        given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if len(weight_shape) != 4 or given.get("auto_pad", b"NOTSET") != b"NOTSET":
            return None
        return cls(
            (weight_shape[2], weight_shape[3]),
            tuple(given.get("strides", (1, 1))),
            tuple(given.get("dilations", (1, 1))),
            tuple(given.get("pads", (0, 0, 0, 0))),
            int(given.get("group", 1)),
        )

    def inputs_of(self, channels: int) -> int:
        """Return how many values an output value is computed from, D."""
        return channels // self.groups * self.kernel[0] * self.kernel[1]

    def draw(self, maps: npt.NDArray[np.float32], places: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """Return the inputs of output values at random places, the same ones of each row, float32 (G, B * places, D).

        Args:
            maps: what the convolution reads, (B, C, H, W).
            places: the number of output values of a row; fewer where there are fewer.
            rng: for the places.
        """
        top, left, bottom, right = self.pads
        if any(self.pads):
            maps = np.pad(maps, ((0, 0), (0, 0), (top, bottom), (left, right)))
        rows, channels = maps.shape[:2]
        (kernel_h, kernel_w), (dilation_h, dilation_w) = self.kernel, self.dilations
        out_h = (maps.shape[2] - (kernel_h - 1) * dilation_h - 1) // self.strides[0] + 1
        out_w = (maps.shape[3] - (kernel_w - 1) * dilation_w - 1) // self.strides[1] + 1
        chosen = rng.permutation(out_h * out_w)[:places]
        y = (chosen // out_w * self.strides[0])[:, None, None] + (np.arange(kernel_h) * dilation_h)[:, None]
        x = (chosen % out_w * self.strides[1])[:, None, None] + np.arange(kernel_w) * dilation_w
        drawn = maps[:, :, y, x].reshape(rows, self.groups, channels // self.groups, len(chosen), -1)
        of_groups: npt.NDArray[np.float32] = drawn.transpose(1, 0, 3, 2, 4)
        return of_groups.reshape(self.groups, rows * len(chosen), -1)


class Covariance:
    """The covariance of a convolution's inputs, summed up over batches."""

    def __init__(self) -> None:
        self._count = 0
        self._sum: Floats | None = None
        self._products: Floats | None = None

    def add(self, drawn: npt.NDArray[np.float32]) -> None:
        """Add inputs (G, N, D)."""
        values = drawn.astype(np.float64)
        total, products = values.sum(axis=1), np.matmul(values.transpose(0, 2, 1), values)
        self._sum = total if self._sum is None else self._sum + total
        self._products = products if self._products is None else self._products + products
        self._count += drawn.shape[1]

    def value(self) -> Floats:
        """Return the covariance (G, D, D)."""
        if self._sum is None or self._products is None:
            raise ValueError("nothing was added")
        mean = self._sum / self._count
        covariance: Floats = self._products / self._count - mean[:, :, None] * mean[:, None, :]
        return covariance


def can_round(window: Window | None, channels: int) -> bool:
    """Return whether weights of this window are rounded together; a covariance of more inputs would not fit memory."""
    return window is not None and window.inputs_of(channels) <= MOST_INPUTS


def choose_steps(weight: Floats, limit: int) -> Floats:
    """Return the step that each output channel's weights become multiples of, (O).

    It is the largest weight, or a share of it, over `limit`, whichever makes the smallest squared error when weights
    are rounded one by one.

    Args:
        weight: (O, ...).
        limit: the largest multiple, in both directions.
    """
    rows = weight.reshape(len(weight), -1)
    largest = np.abs(rows).max(axis=1)
    best, least = np.ones(len(rows)), np.full(len(rows), np.inf)
    for share in _SHARES:
        step = np.maximum(largest * share / limit, np.finfo(np.float32).tiny)
        error = np.square(_nearest(rows, step[:, None], limit) * step[:, None] - rows).sum(axis=1)
        best = np.where(error < least, step, best)
        least = np.minimum(error, least)
    return best.astype(np.float32).astype(np.float64)  # as the graph stores it


def round_weight(weight: Floats, steps: Floats, limit: int, covariance: Floats | None) -> Floats:
    """Return the weights rounded to multiples of their channel's step.

    Args:
        weight: (O, C, ...), where C counts the channels of one group.
        steps: (O).
        limit: the largest multiple, in both directions.
        covariance: of the inputs of an output value, (G, D, D); None rounds each weight to the nearest multiple.
    """
    if covariance is None:
        step = steps.reshape(-1, *[1] * (weight.ndim - 1))
        nearest: Floats = _nearest(weight, step, limit) * step
        return nearest
    groups, inputs = covariance.shape[:2]
    left = weight.reshape(groups, -1, inputs)
    step = steps.reshape(groups, -1)
    variance = covariance.diagonal(axis1=1, axis2=2)
    damping = _DAMPING * variance.mean(axis=1) + np.finfo(np.float32).tiny
    # Inputs that vary most come first: others make up for their errors.
    order = np.argsort(-variance, axis=1, kind="stable")
    damped = covariance + damping[:, None, None] * np.eye(inputs)
    damped = np.take_along_axis(np.take_along_axis(damped, order[:, :, None], axis=1), order[:, None, :], axis=2)
    left = np.take_along_axis(left, order[:, None, :], axis=2)
    upper = np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1)
    rounded = np.empty_like(left)
    for index in range(inputs):
        rounded[:, :, index] = _nearest(left[:, :, index], step, limit) * step
        error = (left[:, :, index] - rounded[:, :, index]) / upper[:, None, index, index]
        left[:, :, index + 1 :] -= error[:, :, None] * upper[:, None, index, index + 1 :]
    back = np.argsort(order, axis=1, kind="stable")
    result: Floats = np.take_along_axis(rounded, back[:, None, :], axis=2).reshape(weight.shape)
    return result


def _nearest(values: Floats, step: Floats, limit: int) -> Floats:
    nearest: Floats = np.clip(np.round(values / step), -limit, limit)
    return nearest
