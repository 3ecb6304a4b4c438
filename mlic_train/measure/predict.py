import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlic_runtime.caption.tokenizer import CaptionTokenizer
from mlic_train.batches.dataset import Batch, Examples, batch_loader, evaluation_batches

Run = Callable[[Batch], Tensor]
MODES = ("both", "picture-only", "caption-only")


def move(batch: Batch, device: torch.device) -> Batch:
    """The batch with every tensor on `device`."""
    moved = {
        field.name: value.to(device)
        for field in dataclasses.fields(batch)
        if (value := getattr(batch, field.name)) is not None
    }
    return dataclasses.replace(batch, **moved)


@dataclass(frozen=True)
class Outputs:
    """What a model said of N rows: `logits` float32 (N, L), and `targets` bool (N, L), the truth.

    `has_picture` and `has_caption` bool (N) tell what the model was given of each row.
    """

    logits: npt.NDArray[np.float32]
    targets: npt.NDArray[np.bool_]
    has_picture: npt.NDArray[np.bool_]
    has_caption: npt.NDArray[np.bool_]


def predict_logits(
    run: Run, examples: Examples, tokenizer: CaptionTokenizer | None, batch_size: int, workers: int = 0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Logits float32 (N, L) and targets bool (N, L) of all examples, in order."""
    outputs = predict_modes(run, examples, tokenizer, batch_size, workers)["both"]
    return outputs.logits, outputs.targets


def predict_modes(
    run: Run,
    examples: Examples,
    tokenizer: CaptionTokenizer | None,
    batch_size: int,
    workers: int = 0,
    modes: Sequence[str] = MODES[:1],
    encode: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Outputs]:
    """What a model says of all examples, in order, once with each input left out; rows that then have neither go.

    Args:
        run: the model.
        examples: at least one.
        tokenizer: None for a model that reads no captions.
        batch_size: rows at a time.
        workers: processes that read pictures; 0: this one.
        modes: some of MODES; one for which there is no row is not in the result.
        encode: pixels to features, for a `run` that takes `Batch.features`: the backbone then works once per picture
            and not once per mode.
    """
    parts: dict[str, list[Outputs]] = {}
    with torch.inference_mode():
        for batch in batch_loader(examples, tokenizer, evaluation_batches(len(examples), batch_size), workers):
            if encode is not None and batch.pixels is not None:
                batch = dataclasses.replace(batch, pixels=None, features=encode(batch.pixels))
            for mode in modes:
                part = in_mode(batch, mode)
                has_picture, has_caption = _present(part)
                rows = np.full(len(has_picture), True) if mode == "both" else has_picture | has_caption
                if rows.any():
                    logits, targets = run(part).float().cpu().numpy(), part.targets.numpy() > 0.5
                    found = Outputs(logits[rows], targets[rows], has_picture[rows], has_caption[rows])
                    parts.setdefault(mode, []).append(found)
    names = [field.name for field in dataclasses.fields(Outputs)]
    return {
        mode: Outputs(**{name: np.concatenate([getattr(part, name) for part in found]) for name in names})
        for mode, found in parts.items()
    }


def in_mode(batch: Batch, mode: str) -> Batch:
    """The batch without its captions ("picture-only"), without its pictures ("caption-only"), or as it is ("both")."""
    if mode == "picture-only" and batch.input_ids is not None:
        nothing = torch.zeros_like(batch.input_ids[:, :1])
        return dataclasses.replace(batch, input_ids=nothing, attention_mask=nothing)
    if mode == "caption-only":
        return dataclasses.replace(batch, pixels=None, features=None, has_picture=None)
    return batch


def _present(batch: Batch) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which rows have a picture and which a caption, both bool (B)."""
    nothing = torch.zeros(len(batch.targets), dtype=torch.bool)
    picture = nothing if batch.has_picture is None else batch.has_picture
    caption = nothing if batch.attention_mask is None else batch.attention_mask.any(dim=1)
    return picture.numpy(), caption.numpy()
