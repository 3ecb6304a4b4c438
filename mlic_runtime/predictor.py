"""`Predictor`: pictures and captions in, labels and probabilities out."""

import math
import os
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from .errors import CaptionError, ImageError, InputError, PackageError
from .files import MAX_PIXELS
from .image import ImageSource, Pixels, read_pixels
from .loading import OpenedGraph, open_graph
from .manifest import TOKENIZER_NAME, Manifest
from .package import ModelPackage, load_package
from .postprocess import decide, sigmoid
from .providers import AUTO, available_cpus
from .rows import Row, RowError
from .stream import stream_rows

if TYPE_CHECKING:
    from .text import CaptionTokenizer


@dataclass(frozen=True)
class Prediction:
    """What the model says about one picture with its caption.

    Attributes:
        image: the path as it was given, or None for a picture from memory and for no picture; of a `Row` its title.
        caption: the caption as it was given.
        labels: the names of the predicted labels, those whose probability reaches their threshold, most probable first.
        probabilities: {label: probability in [0, 1]}, most probable first; only the first k if `top_k` was given.
        model: "name@version" of the model package.
    """

    image: str | None
    caption: str | None
    labels: tuple[str, ...]
    probabilities: dict[str, float]
    model: str

    def to_dict(self) -> dict[str, Any]:
        """The same content, ready for `json.dumps`."""
        return {
            "image": self.image,
            "caption": self.caption,
            "labels": list(self.labels),
            "probabilities": dict(self.probabilities),
            "model": self.model,
        }

    def __repr__(self) -> str:
        found = ", ".join(
            f"{label} {self.probabilities[label]:.2f}" if label in self.probabilities else label
            for label in self.labels
        )
        return f"<Prediction {self.image or '(no path)'}: {found or 'no label'}>"


@dataclass(frozen=True, slots=True)
class _Options:
    """How probabilities become predictions; see `Predictor.predict`."""

    threshold: float | None
    top_k: int | None
    at_least_one: bool

    def __post_init__(self) -> None:
        if self.top_k is not None:
            _check_count("top_k", self.top_k)
        if self.threshold is not None and not (math.isfinite(self.threshold) and 0 <= self.threshold <= 1):
            raise InputError(f"threshold must be in [0, 1], found {self.threshold}")


class Predictor:
    """A loaded model package. Make it with `Predictor.load`; use it from as many threads as you like.

    Example:
        >>> predictor = Predictor.load()  # doctest: +SKIP
        >>> predictor.predict("beach.jpg", "A dog runs on the beach").labels  # doctest: +SKIP
        ('dog',)

    Attributes:
        manifest: of the model package.
        labels: their names, in the order of the manifest.
        precision: which graph of the package runs: "fp32", "fp16" or "int8", never "auto".
        precision_reason: what decided that; see `loading.OpenedGraph`.
        session: the graph.
    """

    def __init__(
        self,
        package: ModelPackage,
        graph: OpenedGraph,
        tokenizer: "CaptionTokenizer | None",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.manifest: Manifest = package.manifest
        self.labels: tuple[str, ...] = tuple(label.name for label in package.manifest.labels)
        self.precision: str = graph.precision
        self.precision_reason: str = graph.reason
        self.session = graph.session
        self._tokenizer = tokenizer
        self._max_pixels = max_pixels
        self._model = package.manifest.title
        self._thresholds = np.array([label.threshold for label in package.manifest.labels], dtype=np.float64)

    @classmethod
    def load(
        cls,
        path_or_name: str | Path | None = None,
        *,
        provider: str = "cpu",
        precision: str = AUTO,
        threads: int | None = None,
        spin: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> "Predictor":
        """Load a model package.

        Args:
            path_or_name: a folder, a `.mlic` file or a name (see `package.find_package`); None means the default.
            provider: ONNX Runtime's execution provider (see `session.create_session`).
            precision: "fp32", "fp16" or "int8"; "auto" means what `mlic-bench --choose` found best on this machine,
                else what the package recommends for the provider, else the first graph that its manifest lists.
            threads: threads per run; None means as many as this process may use.
            spin: see `session.create_session`.
            max_pixels: pictures with more pixels (width x height) are refused.

        Raises:
            PackageError: the package is missing, damaged or does not keep the contract.
            ProviderError: the provider is unknown or not available here.
            ChoiceError: the precision is "auto", and the file of chosen precisions cannot be used.
        """
        package = load_package(path_or_name)
        manifest = package.manifest
        graph = open_graph(package, provider=provider, precision=precision, threads=threads, spin=spin)
        tokenizer = None
        if manifest.text is not None:
            from .text import CaptionTokenizer  # here, because a model without captions need not load tokenizers

            tokenizer = CaptionTokenizer(package.read(TOKENIZER_NAME), manifest.text)
        return cls(package, graph, tokenizer, max_pixels)

    def predict(
        self,
        image: ImageSource | None = None,
        caption: str | None = None,
        *,
        threshold: float | None = None,
        top_k: int | None = None,
        at_least_one: bool = False,
    ) -> Prediction:
        """Predict the labels of one picture with its caption.

        Args:
            image: see `image.load_image`; None means that there is no picture, only a caption.
            caption: what is said about the picture; None or blank means that there is none.
            threshold: in [0, 1], replaces the threshold of every label.
            top_k: >= 1, keep only the k most probable in `probabilities`; `labels` are all that were predicted.
            at_least_one: where no label reaches its threshold, predict the most probable one.

        Raises:
            ImageError: the picture cannot be used, or it is missing and the model reads nothing else.
            CaptionError: the caption is not a text, or the model reads none.
            InputError: neither picture nor caption, or an option out of range.
        """
        options = _Options(threshold, top_k, at_least_one)
        return self._predict_batch([image], [caption], options)[0]

    def predict_many(
        self,
        images: Sequence[ImageSource | None],
        captions: Sequence[str | None] | None = None,
        *,
        batch_size: int = 32,
        threshold: float | None = None,
        top_k: int | None = None,
        at_least_one: bool = False,
    ) -> list[Prediction]:
        """Predict the labels of many pictures, a batch at a time; one at a time gives the same answers.

        Args:
            images: N pictures (see `predict`); they are read when their batch is due.
            captions: N captions, or None for none at all.
            batch_size: how many pictures one run of the graph takes, >= 1.
            threshold: see `predict`.
            top_k: see `predict`.
            at_least_one: see `predict`.

        Returns:
            N predictions in the order of the pictures.

        Raises:
            InputError: see `predict`; also if the lengths differ. The first problem stops the work.
        """
        if isinstance(images, (str, bytes)) or isinstance(captions, str):
            raise InputError("predict_many needs a list of pictures and a list of captions; use predict for one")
        if captions is not None and len(captions) != len(images):
            raise InputError(
                f"found {len(images)} images but {len(captions)} captions: give one caption (or None) each"
            )
        _check_count("batch_size", batch_size)
        options = _Options(threshold, top_k, at_least_one)
        predictions: list[Prediction] = []
        for start in range(0, len(images), batch_size):
            batch = [images[index] for index in range(start, min(start + batch_size, len(images)))]
            texts = [None if captions is None else captions[start + index] for index in range(len(batch))]
            predictions.extend(self._predict_batch(batch, texts, options))
        return predictions

    def predict_rows(
        self,
        rows: Iterable[Row],
        *,
        batch_size: int = 32,
        workers: int | None = None,
        on_error: Literal["record", "stop"] = "record",
        threshold: float | None = None,
        top_k: int | None = None,
        at_least_one: bool = False,
    ) -> Generator[Prediction | RowError, None, None]:
        """Predict the labels of any number of rows, one result after the other; pictures are decoded in threads.

        Args:
            rows: such as `open_rows` gives; read a few batches ahead of the results, and only while they are asked for.
            batch_size: see `predict_many`.
            workers: how many threads decode pictures, >= 1; None means as many as this process may use CPUs.
            on_error: "record" gives a `RowError` in the place of a row that cannot be predicted; "stop" raises it.
            threshold: see `predict`.
            top_k: see `predict`.
            at_least_one: see `predict`.

        Returns:
            The results in the order of the rows, each as in `predict`. The number of workers changes nothing.

        Raises:
            InputError: an option out of range; with on_error="stop" also the first row that cannot be predicted.
            MlicError: what no row can be blamed for.
        """
        workers = available_cpus() if workers is None else workers
        _check_count("batch_size", batch_size)
        _check_count("workers", workers)
        if on_error not in ("record", "stop"):
            raise InputError(f"on_error must be 'record' or 'stop', found {on_error!r}")
        options = _Options(threshold, top_k, at_least_one)

        def run(good: list[Row], pixels: Pixels) -> list[Prediction]:
            return self._run([row.title for row in good], [row.caption for row in good], pixels, options)

        spec = self.manifest.image
        return stream_rows(
            rows,
            self._prepare,
            run,
            size=(spec.height, spec.width),
            batch_size=batch_size,
            workers=workers,
            stop_on_error=on_error == "stop",
        )

    def __enter__(self) -> "Predictor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing to release: the graph lives as long as the object."""

    def _predict_batch(
        self, images: list[ImageSource | None], captions: list[str | None], options: "_Options"
    ) -> list[Prediction]:
        for image, caption in zip(images, captions, strict=True):
            self._check_pair(image, caption)
        spec = self.manifest.image
        # A picture that is missing stays black.
        pixels = np.zeros((len(images), spec.height, spec.width, 3), dtype=np.uint8)
        for out, image in zip(pixels, images, strict=True):
            if image is not None:
                read_pixels(image, spec, out, max_pixels=self._max_pixels)
        return self._run([_path(image) for image in images], captions, pixels, options)

    def _prepare(self, row: Row, out: Pixels) -> None:
        """Check a row, and write its picture, if it has one, to `out`, uint8 (H, W, 3)."""
        if row.error is not None:
            raise row.error
        if not (row.caption is None or isinstance(row.caption, str)):
            raise CaptionError(f"a caption must be a text (str) or None, found {type(row.caption).__name__}")
        self._check_pair(row.image, row.caption)
        if row.image is not None:
            read_pixels(row.image, self.manifest.image, out, max_pixels=self._max_pixels)

    def _run(
        self, titles: list[str | None], captions: list[str | None], pixels: Pixels, options: "_Options"
    ) -> list[Prediction]:
        tokens = () if self._tokenizer is None else self._tokenizer.encode(captions)
        logits = self.session.run(pixels, *tokens)
        if logits.shape != (len(titles), len(self.labels)):
            raise PackageError(
                f"the graph of {self._model} gave logits of shape {logits.shape}, "
                f"expected ({len(titles)}, {len(self.labels)}): one per label of the manifest"
            )
        probabilities = sigmoid(logits)
        threshold = options.threshold
        thresholds = self._thresholds if threshold is None else np.full_like(self._thresholds, threshold)
        decisions = decide(probabilities, thresholds, at_least_one=options.at_least_one)
        return [
            self._prediction(title, caption, row, chosen, options.top_k)
            for title, caption, row, chosen in zip(titles, captions, probabilities, decisions, strict=True)
        ]

    def _check_pair(self, image: ImageSource | None, caption: str | None) -> None:
        if self._tokenizer is None:
            if caption is not None:
                raise CaptionError(f"model {self._model} reads no caption: leave it out")
            if image is None:
                raise ImageError(f"model {self._model} reads only a picture, and none was given")
        elif image is None and (caption is None or (isinstance(caption, str) and not caption.strip())):
            raise InputError("there is neither a picture nor a caption: give at least one")

    def _prediction(
        self,
        path: str | None,
        caption: str | None,
        probabilities: npt.NDArray[np.float32],
        chosen: npt.NDArray[np.bool_],
        top_k: int | None,
    ) -> Prediction:
        order = np.argsort(-probabilities, kind="stable")  # equal ones stay in the manifest's order
        return Prediction(
            image=path,
            caption=caption,
            labels=tuple(self.labels[index] for index in order if chosen[index]),
            probabilities={self.labels[index]: float(probabilities[index]) for index in order[:top_k]},
            model=self._model,
        )


def _check_count(name: str, count: int) -> None:
    if count < 1:
        raise InputError(f"{name} must be 1 or more, found {count}")


def _path(image: ImageSource | None) -> str | None:
    return os.fspath(image) if isinstance(image, (str, os.PathLike)) else None
