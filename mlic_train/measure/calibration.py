"""Calibration, fitted on the validation split: it makes reliable probabilities of a model's logits."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from mlic_runtime.base.arrays import Bools, Floats
from mlic_train.models.calibration import BOTH, CAPTION_ONLY, PICTURE_ONLY, Calibration

from .predict import Outputs
from .scored import scored_rows

# Penalties are in units of positives: near its minimum the log-loss of a rare label's n positives grows at most like
# n / 2 * bias ** 2. Cross-validated on coco18's validation rows, where all values from 5 to 50 are about as good.
_TO_SHARED = 20.0
_TO_IDENTITY = 1.0  # keeps the numbers finite for a model without errors on a few rows
# {row of the calibration: (its mode, whether its rows have a picture, whether they have a caption)}
_MODES = {
    BOTH: ("both", True, True),
    PICTURE_ONLY: ("picture-only", True, False),
    CAPTION_ONLY: ("caption-only", False, True),
}


def fit_calibration(
    logits: Floats, targets: Bools, kind: str, known: Bools | None = None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Fit scale and bias per label, which minimise the log-loss of sigmoid(scale * logit + bias).

    "temperature" is one scale for all labels and no bias (Guo et al. 2017, "On Calibration of Modern Neural
    Networks"). "platt" is a scale and a bias per label (Platt 1999, "Probabilistic Outputs for Support Vector
    Machines"), with a penalty against overfitting where a label has few positives. It minimises

        sum over labels of (log-losses + k / 2 * (log(scale / S) ** 2 + (bias - B) ** 2))
        + 1 / 2 * (log(S) ** 2 + B ** 2),  k = 20,

    over every label's scale and bias and the shared S and B. At 20 positives a label's own optimum and the shared
    numbers have about equal weight; the identity has the weight of one positive ("temperature" has this last term too).
    Rows without any label are left out, as in thresholds and metrics (see `scored_rows`), and unknown labels of the
    other rows. A label that is true in none or in all of the rows that know it gets the shared numbers.

    Args:
        logits: float (N, L), not calibrated.
        targets: bool (N, L).
        kind: "none", "temperature" or "platt".
        known: bool (N, L), False where a label is unknown; None where none is.

    Returns:
        scale float32 (L), greater than 0, and bias float32 (L); 1 and 0 for "none" and where nothing can be fitted.
    """
    rows = scored_rows(targets, known)
    logits, targets, known = logits[rows], targets[rows], known if known is None else known[rows]
    if known is not None:
        targets = targets & known
    mixed = targets.any(axis=0) & ~(targets if known is None else targets | ~known).all(axis=0)
    shared = torch.zeros(2, 1, dtype=torch.float64, requires_grad=True)  # log(S) and B
    own = torch.zeros(2, int(mixed.sum()), dtype=torch.float64, requires_grad=True)  # log(scale / S) and bias - B
    if kind != "none" and mixed.any():
        values = torch.from_numpy(logits[:, mixed].astype(np.float64))
        truth = torch.from_numpy(targets[:, mixed].astype(np.float64))
        counted = None if known is None else torch.from_numpy(known[:, mixed].astype(np.float64))
        free = torch.tensor([[1.0], [1.0 if kind == "platt" else 0.0]])  # a temperature has no bias
        optimizer = torch.optim.LBFGS(
            [shared, own] if kind == "platt" else [shared],
            max_iter=1000,
            tolerance_grad=1e-9,
            tolerance_change=1e-14,
            line_search_fn="strong_wolfe",
        )

        def closure() -> float:
            optimizer.zero_grad()
            log_scale, bias = shared * free + own
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                log_scale.exp() * values + bias, truth, counted, reduction="sum"
            )
            penalty = _TO_IDENTITY / 2 * (shared**2).sum() + _TO_SHARED / 2 * (own**2).sum()
            loss = (loss + penalty) / truth.sum()
            loss.backward()  # type: ignore[no-untyped-call] # torch leaves it so
            return loss.item()

        optimizer.step(closure)  # type: ignore[no-untyped-call] # torch leaves it so
    log_scale, bias = shared.detach().numpy().repeat(targets.shape[1], axis=1)
    log_scale[mixed] += own.detach().numpy()[0]
    bias[mixed] += own.detach().numpy()[1]
    return np.exp(log_scale).astype(np.float32), bias.astype(np.float32)


def calibrate(
    calibration: Calibration, outputs: Mapping[str, Outputs], kind: str, empty_odds: float = 1.0
) -> dict[str, Outputs]:
    """Fit a model's calibration; return the outputs that the model now has, without running it again.

    Each mode is fitted to the rows with exactly its inputs; without such rows it stays the identity.

    `outputs` are those for the validation rows by mode, not calibrated. Scale and bias are fitted after the shift by
    `empty_odds` (see `Calibration`); for `kind` see `fit_calibration`.
    """
    calibration.reset()
    calibration.empty_odds.fill_(empty_odds)
    for index, (mode, has_picture, has_caption) in _MODES.items():
        rows = outputs.get(mode, outputs["both"])  # a model that reads only pictures has the mode "both" alone
        exact = (rows.has_picture == has_picture) & (rows.has_caption == has_caption)
        shifted = calibration.with_fewer_empty_rows(torch.from_numpy(rows.logits[exact])).numpy()
        scale, bias = fit_calibration(shifted, rows.targets[exact], kind, rows.known_in(exact))
        calibration.set(index, torch.from_numpy(scale), torch.from_numpy(bias))
    return {mode: apply_calibration(calibration, rows) for mode, rows in outputs.items()}


def apply_calibration(calibration: Calibration, rows: Outputs) -> Outputs:
    """Return the outputs with calibrated logits."""
    arrays = (rows.logits, rows.has_picture, rows.has_caption)
    with torch.inference_mode():
        logits: npt.NDArray[np.float32] = calibration(*(torch.from_numpy(array) for array in arrays)).numpy()
    return dataclasses.replace(rows, logits=logits)
