import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlic_runtime.caption.tokenizer import CaptionTokenizer
from mlic_train.batches.dataset import Batch, Examples, batch_loader, evaluation_batches, reading_errors

Run = Callable[[Batch], Tensor]
MODES = ("both", "picture-only", "caption-only")


@dataclass(frozen=True)
class Outputs:
    """The outputs of a model for N rows: `logits` float32 (N, L), beside the true labels, `targets` bool (N, L).

    `has_picture` and `has_caption` bool (N) say which inputs the model was given of each row. `known` bool (N, L) is
    False where a label is unknown, whatever `targets` says; None where none is.
    """

    logits: npt.NDArray[np.float32]
    targets: npt.NDArray[np.bool_]
    has_picture: npt.NDArray[np.bool_]
    has_caption: npt.NDArray[np.bool_]
    known: npt.NDArray[np.bool_] | None = None

    def known_in(self, rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_] | None:
        """Return `known` of some rows, chosen by bool (N)."""
        return None if self.known is None else self.known[rows]


def predict_modes(
    run: Run,
    examples: Examples,
    tokenizer: CaptionTokenizer | None,
    batch_size: int,
    workers: int = 0,
    modes: Sequence[str] = MODES[:1],
    progress: Callable[[int, int], None] = lambda done, total: None,
    enough: Callable[[int], bool] | None = None,
) -> dict[str, Outputs]:
    """Run a model on all examples in each mode; return its outputs by mode, in the order of the examples.

    In the modes that leave an input out, rows that then have neither input are left out too.

    Args:
        run: the model.
        examples: at least one.
        tokenizer: None for a model that reads no captions.
        batch_size: rows at a time.
        workers: the number of processes that read pictures; 0 for this process.
        modes: some of MODES; a mode without any row is not in the result.
        progress: called with (rows done, rows in all).
        enough: called after every batch with the rows done; True leaves the other rows out. The rows are then drawn at
            random, the same ones each time, so that those which were run stand for all.
    """
    parts: dict[str, list[Outputs]] = {}
    indices: dict[str, list[npt.NDArray[np.integer]]] = {}
    done = 0
    order: npt.NDArray[np.integer] = (
        np.arange(len(examples)) if enough is None else np.random.default_rng(0).permutation(len(examples))
    )
    batches = [[(0, int(order[row])) for _, row in rows] for rows in evaluation_batches(len(order), batch_size)]
    with reading_errors(), torch.inference_mode():
        for batch in batch_loader(examples, tokenizer, batches, workers):
            for mode in modes:
                part = in_mode(batch, mode)
                has_picture, has_caption = _present(part)
                rows = np.full(len(has_picture), True) if mode == "both" else has_picture | has_caption
                if rows.any():
                    logits, targets = run(part).float().cpu().numpy(), part.targets.numpy() > 0.5
                    known = None if part.known is None else part.known.numpy()[rows]
                    outputs = Outputs(logits[rows], targets[rows], has_picture[rows], has_caption[rows], known)
                    parts.setdefault(mode, []).append(outputs)
                    indices.setdefault(mode, []).append(order[done : done + len(rows)][rows])
            done += len(batch.targets)
            progress(done, len(examples))
            if enough is not None and enough(done):
                break
    return {mode: _join(of_mode, np.argsort(np.concatenate(indices[mode]))) for mode, of_mode in parts.items()}


def _join(parts: Sequence[Outputs], order: npt.NDArray[np.integer]) -> Outputs:
    """Put the rows of all parts into this order."""
    names = [field.name for field in dataclasses.fields(Outputs)]
    if all(part.known is None for part in parts):
        names.remove("known")
    else:
        every = [np.full(part.targets.shape, True) if part.known is None else part.known for part in parts]
        parts = [dataclasses.replace(part, known=known) for part, known in zip(parts, every, strict=True)]
    return Outputs(**{name: np.concatenate([getattr(part, name) for part in parts])[order] for name in names})


def in_mode(batch: Batch, mode: str) -> Batch:
    """Return the batch without its captions ("picture-only"), without its pictures ("caption-only") or as it is."""
    if mode == "picture-only" and batch.input_ids is not None:
        nothing = torch.zeros_like(batch.input_ids[:, :1])
        return dataclasses.replace(batch, input_ids=nothing, attention_mask=nothing)
    if mode == "caption-only":
        return dataclasses.replace(batch, pixels=None, features=None, has_picture=None)
    return batch


def _present(batch: Batch) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which rows have a picture and which have a caption, both bool (B)."""
    nothing = torch.zeros(len(batch.targets), dtype=torch.bool)
    picture = nothing if batch.has_picture is None else batch.has_picture
    caption = nothing if batch.attention_mask is None else batch.attention_mask.any(dim=1)
    return picture.numpy(), caption.numpy()
