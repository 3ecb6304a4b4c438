"""`Predictor`: pictures and captions in, labels and probabilities out."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Generator, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from mlic_runtime.base.background import Background
from mlic_runtime.base.machine import available_cpus
from mlic_runtime.errors import CaptionError, ImageError, InputError, PackageError
from mlic_runtime.graph.opening import OpenedGraph, open_graph
from mlic_runtime.limits import MAX_PIXELS
from mlic_runtime.package.manifest import TOKENIZER_NAME, Manifest
from mlic_runtime.package.model_package import ModelPackage, load_package
from mlic_runtime.providers.names import AUTO

from .prediction import Prediction, PredictionOptions, check_count, decide, explain, make_prediction, sigmoid

if TYPE_CHECKING:
    from PIL import Image

    from mlic_runtime.base.arrays import Pixels
    from mlic_runtime.caption.tokenizer import CaptionTokenizer
    from mlic_runtime.graph.session import GraphSession
    from mlic_runtime.picture.decode import ImageSource
    from mlic_runtime.rows.reader import Row, RowError


_Predictor = TypeVar("_Predictor", bound="Predictor")


class Predictor:
    """A loaded model package. Make it with `Predictor.load`; use it from as many threads as you like.

    Example:
        >>> predictor = Predictor.load()  # doctest: +SKIP
        >>> predictor.predict("beach.jpg", "A dog runs on the beach").labels  # doctest: +SKIP
        ('dog',)

    Attributes:
        manifest: of the model package.
        labels: their names, in the order of the manifest.
        max_pixels: pictures with more pixels (width x height) are refused.
        allow_truncated: whether a picture file without its end is decoded as far as it goes.
    """

    def __init__(
        self,
        package: ModelPackage,
        graph: OpenedGraph | Background[OpenedGraph],
        tokenizer: CaptionTokenizer | None,
        max_pixels: int = MAX_PIXELS,
        allow_truncated: bool = False,
    ) -> None:
        self._graph_or_loading = graph
        self.manifest: Manifest = package.manifest
        self.labels: tuple[str, ...] = tuple(label.name for label in package.manifest.labels)
        self._tokenizer = tokenizer
        self.max_pixels = max_pixels
        self.allow_truncated = allow_truncated
        self._model = package.manifest.title
        self._thresholds = np.array([label.threshold for label in package.manifest.labels], dtype=np.float64)

    @classmethod
    def load(
        cls: type[_Predictor],
        path_or_name: str | Path | ModelPackage | None = None,
        *,
        provider: str = "cpu",
        precision: str = AUTO,
        threads: int | None = None,
        spin: bool = False,
        max_pixels: int = MAX_PIXELS,
        allow_truncated: bool = False,
        cache: bool = True,
    ) -> _Predictor:
        """Load a model package.

        Args:
            path_or_name: a folder, a `.mlic` file or a name (see `model_package.find_package`); None means the default.
                A `ModelPackage` is taken as it is.
            provider: ONNX Runtime's execution provider, "openvino" or "auto" (see `session.create_session`).
            precision: "fp32", "fp16", "int8-full" or "int8"; "auto" means what `mlic-bench --choose` found best on this
                machine, else what the package recommends for the provider, else the first graph of its manifest.
            threads: threads per run; None means one for every physical core that this process may use.
            spin: see `session.create_session`.
            max_pixels: pictures with more pixels (width x height) are refused.
            allow_truncated: decode a picture file without its end as far as it goes (see `decode.load_image`).
            cache: see `opening.open_graph`.

        Raises:
            PackageError: the package is missing, damaged or does not keep the contract.
            ProviderError: the provider is unknown or not available here.
            ChoiceError: the precision is "auto", and the file of chosen precisions cannot be used.
        """
        predictor = cls.start(
            path_or_name,
            provider=provider,
            precision=precision,
            threads=threads,
            spin=spin,
            max_pixels=max_pixels,
            allow_truncated=allow_truncated,
            cache=cache,
        )
        predictor.wait()
        return predictor

    @classmethod
    def start(
        cls: type[_Predictor],
        path_or_name: str | Path | ModelPackage | None = None,
        *,
        provider: str = "cpu",
        precision: str = AUTO,
        threads: int | None = None,
        spin: bool = False,
        max_pixels: int = MAX_PIXELS,
        allow_truncated: bool = False,
        cache: bool = True,
    ) -> _Predictor:
        """Do as `load`, but return while the graph still loads; what needs it waits for it, and raises its errors."""
        package = path_or_name if isinstance(path_or_name, ModelPackage) else load_package(path_or_name)
        # In the background: ONNX Runtime does not hold Python's lock while it loads a graph.
        graph = Background(
            lambda: open_graph(package, provider=provider, precision=precision, threads=threads, spin=spin, cache=cache)
        )
        import_module("mlic_runtime.picture.decode")  # and Pillow with it
        tokenizer = _load_tokenizer(package)
        return cls(package, graph, tokenizer, max_pixels, allow_truncated)

    def wait(self) -> None:
        """Wait until the graph is loaded.

        Raises:
            MlicError: it cannot be loaded; see `load`.
        """
        _ = self._graph

    @functools.cached_property
    def _graph(self) -> OpenedGraph:
        graph = self._graph_or_loading
        return graph.result() if isinstance(graph, Background) else graph

    @property
    def session(self) -> GraphSession:
        """The graph."""
        return self._graph.session

    @property
    def precision(self) -> str:
        """Which graph of the package runs, such as "fp32", never "auto"."""
        return self._graph.precision

    @property
    def precision_reason(self) -> str:
        """What decided that; see `opening.OpenedGraph`."""
        return self._graph.reason

    @property
    def graph_origin(self) -> str:
        """Whether the graph came from the cache; see `opening.OpenedGraph`."""
        return self._graph.origin

    @property
    def provider_reason(self) -> str:
        """What decided `session.provider`; see `opening.OpenedGraph`."""
        return self._graph.provider_reason

    def predict(
        self,
        image: ImageSource | None = None,
        caption: str | None = None,
        *,
        threshold: float | None = None,
        top_k: int | None = None,
        at_least_one: bool = False,
        evidence: bool = False,
    ) -> Prediction:
        """Predict the labels of one picture with its caption.

        Args:
            image: see `decode.load_image`; None means no picture, only a caption.
            caption: a text about the picture; None or blank means no caption.
            threshold: see `PredictionOptions`.
            top_k: see `PredictionOptions`.
            at_least_one: see `PredictionOptions`.
            evidence: also say where in the picture, and which words, the labels come from (`Prediction.evidence`). It
                costs nothing more if the package's graph explains itself (`session.explains`); else the graph runs once
                more, over some 50 copies of the row.

        Raises:
            ImageError: the picture cannot be used, or it is missing and the model reads nothing else.
            CaptionError: the caption is not a text, or the model reads none.
            InputError: neither picture nor caption, or an option out of range.
        """
        options = PredictionOptions(threshold, top_k, at_least_one)
        if evidence:
            return self._explain(image, caption, options)
        return self._predict_batch([image], [caption], options)[0]

    def save_explanation(
        self, prediction: Prediction, path: str | os.PathLike[str], *, threshold: float | None = None
    ) -> None:
        """Write a prediction with its evidence as a page (.html) or a picture (.png), by the ending of the file.

        The page needs no other file and no network. Shown are the predicted labels; without any, the most probable.

        Args:
            prediction: from `predict` with evidence=True, by this model.
            path: of the file. An earlier explanation there is replaced, anything else is kept.
            threshold: that of `predict`.

        Raises:
            InputError: the prediction has no evidence, or the threshold is out of range.
            OutputError: another ending, there is another file, or it cannot be written.
        """
        from mlic_runtime.explain.file import write_explanation  # here, because most predictions are not explained

        thresholds = self.thresholds(PredictionOptions(threshold))
        by_label = {label: float(value) for label, value in zip(self.labels, thresholds, strict=True)}
        write_explanation(explain(prediction, by_label, self.manifest.image.resize), Path(path))

    def predict_many(
        self,
        images: Sequence[ImageSource | None],
        captions: Sequence[str | None] | None = None,
        *,
        batch_size: int = 8,
        threshold: float | None = None,
        top_k: int | None = None,
        at_least_one: bool = False,
    ) -> list[Prediction]:
        """Predict the labels of many pictures, a batch at a time; one at a time gives the same answers.

        Args:
            images: N pictures (see `predict`); each is read just before its batch is predicted.
            captions: N captions, or None for none at all.
            batch_size: how many pictures one run of the graph takes, >= 1. More than 8 leave the processor's cache,
                and gain nothing on a CPU.
            threshold: see `PredictionOptions`.
            top_k: see `PredictionOptions`.
            at_least_one: see `PredictionOptions`.

        Returns:
            N predictions in the order of the pictures.

        Raises:
            InputError: as in `predict`; also if the lengths differ. The first problem stops the work.
        """
        if isinstance(images, (str, bytes)) or isinstance(captions, str):
            raise InputError("predict_many needs a list of pictures and a list of captions; use predict for one")
        if captions is not None and len(captions) != len(images):
            raise InputError(
                f"found {len(images)} images but {len(captions)} captions: give one caption (or None) each"
            )
        check_count("batch_size", batch_size)
        options = PredictionOptions(threshold, top_k, at_least_one)
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
        batch_size: int = 8,
        workers: int | None = None,
        on_error: Literal["record", "stop"] = "record",
        threshold: float | None = None,
        top_k: int | None = None,
        at_least_one: bool = False,
    ) -> Generator[Prediction | RowError, None, None]:
        """Predict the labels of any number of rows, one result after the other; pictures are decoded in threads.

        Args:
            rows: from `open_rows`, or made by you; they are read a few batches ahead of the results that you take.
            batch_size: see `predict_many`.
            workers: how many threads decode pictures, >= 1; None means one for every CPU that this process may use.
                With 2 or more, the graph also runs on two batches at once.
            on_error: "record" gives a `RowError` in the place of a row that cannot be predicted; "stop" raises it.
            threshold: see `PredictionOptions`.
            top_k: see `PredictionOptions`.
            at_least_one: see `PredictionOptions`.

        Returns:
            The results in the order of the rows, each as in `predict`. The number of workers changes nothing.

        Raises:
            InputError: an option out of range; with on_error="stop" also the first row that cannot be predicted.
            MlicError: a problem that is not one row's, such as a graph that fails.
        """
        options = PredictionOptions(threshold, top_k, at_least_one)
        return self.stream_rows(rows, options, batch_size=batch_size, workers=workers, on_error=on_error)

    def stream_rows(
        self,
        rows: Iterable[Row],
        options: PredictionOptions,
        *,
        batch_size: int,
        workers: int | None = None,
        on_error: Literal["record", "stop"] = "record",
    ) -> Generator[Prediction | RowError, None, None]:
        """Predict rows as `predict_rows` does, with the options of a prediction in one value."""
        workers = available_cpus() if workers is None else workers
        check_count("batch_size", batch_size)
        check_count("workers", workers)
        if on_error not in ("record", "stop"):
            raise InputError(f"on_error must be 'record' or 'stop', found {on_error!r}")
        from .stream import stream_rows  # here, because a single prediction does not need concurrent.futures

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

    def prepare(self, row: Row) -> Pixels:
        """Check a row, and return its picture as the model sees it, uint8 (H, W, 3); black without a picture.

        Raises:
            InputError: as in `predict`.
        """
        spec = self.manifest.image
        pixels = np.zeros((spec.height, spec.width, 3), dtype=np.uint8)
        self._prepare(row, pixels)
        return pixels

    def predict_prepared(
        self, rows: Sequence[Row], pixels: Pixels, options: Sequence[PredictionOptions]
    ) -> list[Prediction]:
        """Predict B rows that `prepare` has checked in one run of the graph, each with options of its own.

        Args:
            rows: B rows; only their titles and captions count.
            pixels: uint8 (B, H, W, 3), of `prepare`.
            options: B of them.
        """
        titles, captions = [row.title for row in rows], [row.caption for row in rows]
        logits = self._run_graph(pixels, self._tokenise(captions))
        made = {one: self._postprocess(titles, captions, logits, one) for one in dict.fromkeys(options)}
        return [made[one][index] for index, one in enumerate(options)]

    def thresholds(self, options: PredictionOptions) -> npt.NDArray[np.float64]:
        """Return the threshold of every label, (L,) in [0, 1], with these options."""
        if options.threshold is None:
            return self._thresholds
        return np.full_like(self._thresholds, options.threshold)

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Release nothing: the graph lives as long as the object."""

    def _predict_batch(
        self, images: list[ImageSource | None], captions: list[str | None], options: PredictionOptions
    ) -> list[Prediction]:
        spec = self.manifest.image
        # A row without a picture stays black.
        pixels = np.zeros((len(images), spec.height, spec.width, 3), dtype=np.uint8)
        for image, caption, out in zip(images, captions, pixels, strict=True):
            self._prepare_pair(image, caption, out)
        return self._run([_path(image) for image in images], captions, pixels, options)

    def _explain(self, image: ImageSource | None, caption: str | None, options: PredictionOptions) -> Prediction:
        from .evidence import by_occlusion, from_graph  # here, because most predictions are not explained

        spec = self.manifest.image
        pixels = np.zeros((1, spec.height, spec.width, 3), dtype=np.uint8)
        self._prepare_pair(image, caption, pixels[0])
        tokens = self._tokenise([caption])
        spans = [] if self._tokenizer is None else self._tokenizer.spans(caption)
        about = (self.labels, caption, spans, image is not None)
        if self.session.explains:
            graph = self.session.explain(pixels, *tokens)
            logits, found = self._checked(graph.logits, 1), from_graph(graph, 0, *about)
        else:
            logits = self._run_graph(pixels, tokens)
            ids, mask = tokens or (None, None)
            found = by_occlusion(self.session.run, pixels, ids, mask, *about)
        prediction = self._postprocess([_path(image)], [caption], logits, options)[0]
        if image is not None:
            found = dataclasses.replace(found, pixels=pixels[0])
        return dataclasses.replace(prediction, evidence=found)

    def _prepare(self, row: Row, out: Pixels) -> None:
        """Check a row, and write its picture, if it has one, to `out`, uint8 (H, W, 3)."""
        if row.error is not None:
            raise row.error
        self._prepare_pair(row.image, row.caption, out)

    def _prepare_pair(self, image: ImageSource | None, caption: str | None, out: Pixels) -> None:
        if not (caption is None or isinstance(caption, str)):
            raise CaptionError(f"a caption must be a text (str) or None, found {type(caption).__name__}")
        if self._tokenizer is None:
            if caption is not None:
                raise CaptionError(f"model {self._model} reads no caption: leave it out")
            if image is None:
                raise ImageError(f"model {self._model} reads only a picture, and none was given")
        elif image is None and (caption is None or not caption.strip()):
            raise InputError("there is neither a picture nor a caption: give at least one")
        if image is not None:
            self._preprocess(self._decode(image), out)

    def _run(
        self, titles: list[str | None], captions: list[str | None], pixels: Pixels, options: PredictionOptions
    ) -> list[Prediction]:
        tokens = self._tokenise(captions)
        logits = self._run_graph(pixels, tokens)
        return self._postprocess(titles, captions, logits, options)

    # The five steps of every prediction; `bench.stages` overrides them to time them.

    def _decode(self, source: ImageSource) -> Image.Image:
        from mlic_runtime.picture.decode import view_image  # here, because `load` imports it while the graph loads

        return view_image(
            source,
            spec=self.manifest.image,
            max_pixels=self.max_pixels,
            allow_truncated=self.allow_truncated,
        )

    def _preprocess(self, image: Image.Image, out: Pixels) -> None:
        from mlic_runtime.picture.decode import to_pixels

        to_pixels(image, self.manifest.image, out)

    def _tokenise(self, captions: list[str | None]) -> tuple[npt.NDArray[np.int64], ...]:
        """Return (input_ids, attention_mask), or () for a model that reads no caption."""
        return () if self._tokenizer is None else self._tokenizer.encode(captions)

    def _run_graph(self, pixels: Pixels, tokens: tuple[npt.NDArray[np.int64], ...]) -> npt.NDArray[np.float32]:
        return self._checked(self.session.run(pixels, *tokens), len(pixels))

    def _checked(self, logits: npt.NDArray[np.float32], rows: int) -> npt.NDArray[np.float32]:
        if logits.shape != (rows, len(self.labels)):
            raise PackageError(
                f"the graph of {self._model} gave logits of shape {logits.shape}, "
                f"expected ({rows}, {len(self.labels)}): one per label of the manifest"
            )
        return logits

    def _postprocess(
        self,
        titles: list[str | None],
        captions: list[str | None],
        logits: npt.NDArray[np.float32],
        options: PredictionOptions,
    ) -> list[Prediction]:
        probabilities = sigmoid(logits)
        decisions = decide(probabilities, self.thresholds(options), at_least_one=options.at_least_one)
        return [
            make_prediction(title, caption, self._model, self.labels, row, chosen, options.top_k)
            for title, caption, row, chosen in zip(titles, captions, probabilities, decisions, strict=True)
        ]


def _load_tokenizer(package: ModelPackage) -> CaptionTokenizer | None:
    if package.manifest.text is None:
        return None
    from mlic_runtime.caption.tokenizer import CaptionTokenizer  # here: a model without captions does not need it

    return CaptionTokenizer(package.read(TOKENIZER_NAME), package.manifest.text)


def _path(image: ImageSource | None) -> str | None:
    return os.fspath(image) if isinstance(image, (str, os.PathLike)) else None
