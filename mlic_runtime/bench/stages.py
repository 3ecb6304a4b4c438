"""Time of each step of one prediction: decode, preprocess, tokenise, run, postprocess."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from mlic_runtime.base.arrays import Pixels, Seconds
from mlic_runtime.base.machine import busy_notes
from mlic_runtime.base.override import override
from mlic_runtime.package.model_package import ModelPackage
from mlic_runtime.picture.decode import ImageSource
from mlic_runtime.predict.prediction import Prediction
from mlic_runtime.predict.predictor import Predictor

from .inputs import DEFAULT_CAPTION, BenchOptions, describe_picture, synthetic_jpeg
from .timing import Report, call_in_turns, describe_machine, milliseconds, spread

if TYPE_CHECKING:
    from PIL import Image

STAGES = ("decode", "preprocess", "tokenise", "run", "postprocess")

_Result = TypeVar("_Result")


class StagedPredictor(Predictor):
    """A predictor that adds up how long each of its steps took; to be used by one thread.

    It times the steps of `Predictor` as `predict` calls them, so it measures the real path. The clock adds about a
    microsecond to a prediction.

    Attributes:
        seconds: {stage: wall time in seconds since `restart`}, in the order of STAGES. `decode` is from the file to
            an upright RGB picture (a JPEG at a reduced scale, see `decode.load_image`), `preprocess` from there to
            pixels, `tokenise` from the caption to tokens, `run` the graph, `postprocess` from logits to a `Prediction`.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.restart()

    def restart(self) -> None:
        """Set every stage to zero."""
        self.seconds = dict.fromkeys(STAGES, 0.0)

    @override
    def _decode(self, source: ImageSource) -> "Image.Image":
        return self._timed("decode", super()._decode, source)

    @override
    def _preprocess(self, image: "Image.Image", out: Pixels) -> None:
        self._timed("preprocess", super()._preprocess, image, out)

    @override
    def _tokenise(self, captions: list[str | None]) -> tuple[npt.NDArray[np.int64], ...]:
        return self._timed("tokenise", super()._tokenise, captions)

    @override
    def _run_graph(self, pixels: Pixels, tokens: tuple[npt.NDArray[np.int64], ...]) -> npt.NDArray[np.float32]:
        return self._timed("run", super()._run_graph, pixels, tokens)

    @override
    def _postprocess(self, *args: Any) -> list[Prediction]:
        return self._timed("postprocess", super()._postprocess, *args)

    def _timed(self, stage: str, step: Callable[..., _Result], *args: Any) -> _Result:
        start = time.perf_counter()
        result = step(*args)
        self.seconds[stage] += time.perf_counter() - start
        return result


@dataclass(frozen=True)
class StageTiming:
    """Wall time of a stage, or of the whole prediction, in milliseconds."""

    name: str
    p50_ms: float
    p90_ms: float


@dataclass(frozen=True)
class StageReport(Report):
    """A measurement, with how and where it was made.

    Attributes:
        labels: the predicted labels.
        stages: in the order of STAGES; a model that reads no caption spends almost nothing on "tokenise".
        predict: the whole call of `Predictor.predict`; its checks make it more than the sum of the stages.
        overhead: the time of `predict` outside "run" over the time of "run": the median over the runs.
        overhead_p10: the 10th percentile of the same ratio.
        overhead_p90: the 90th percentile of the same ratio.
    """

    model: str
    precision: str
    provider: str
    threads: int
    warmup: int
    runs: int
    picture: str
    caption: str | None
    labels: tuple[str, ...]
    machine: dict[str, str | int]
    stages: tuple[StageTiming, ...]
    predict: StageTiming
    overhead: float
    overhead_p10: float
    overhead_p90: float
    notes: tuple[str, ...]


def measure_stages(
    package: ModelPackage,
    options: BenchOptions | None = None,
    *,
    progress: Callable[[], object] = lambda: None,
) -> StageReport:
    """Measure predictions of one picture, one after the other, warm and in this process.

    The arguments are those of `benchmark.benchmark`. A picture file is read for each prediction; without a picture it
    is `inputs.synthetic_jpeg`.

    Raises:
        InputError: a picture or caption cannot be used.
        PackageError: the graph failed.
    """
    options = options or BenchOptions()
    notes = busy_notes()
    predictor = StagedPredictor.load(package.path, **options.loading)
    image, caption = options.image, options.caption
    if image is None:
        image, picture = synthetic_jpeg()
    else:
        picture = describe_picture(image)
    if caption is None and predictor.manifest.text is not None:
        caption = DEFAULT_CAPTION
    rows: list[list[float]] = []

    def predict_once() -> Prediction:
        predictor.restart()
        prediction = predictor.predict(image, caption)
        rows.append(list(predictor.seconds.values()))
        return prediction

    (predict,), (prediction,) = call_in_turns([predict_once], options.runs, options.warmup, progress)
    stages = np.array(rows[-options.runs :], dtype=np.float64).T
    run = stages[STAGES.index("run")]
    p10, p50, p90 = spread((predict - run) / run, digits=4)
    return StageReport(
        model=predictor.manifest.title,
        precision=predictor.precision,
        provider=predictor.session.provider,
        threads=predictor.session.threads,
        warmup=options.warmup,
        runs=options.runs,
        picture=picture,
        caption=caption,
        labels=prediction.labels,
        machine=describe_machine(),
        stages=tuple(_timing(name, seconds) for name, seconds in zip(STAGES, stages, strict=True)),
        predict=_timing("predict", predict),
        overhead=p50,
        overhead_p10=p10,
        overhead_p90=p90,
        notes=notes,
    )


def _timing(name: str, seconds: Seconds) -> StageTiming:
    return StageTiming(name, *milliseconds(seconds, 50, 90))
