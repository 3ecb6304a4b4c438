"""Where the time of one prediction goes: decode, preprocess, tokenise, run, postprocess."""

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from mlic_runtime.base.arrays import Pixels, Seconds
from mlic_runtime.base.machine import busy_notes
from mlic_runtime.picture.decode import ImageSource
from mlic_runtime.predict.prediction import Prediction
from mlic_runtime.predict.predictor import Predictor

from .inputs import DEFAULT_CAPTION, synthetic_jpeg
from .timing import describe_machine, milliseconds, require_positive

if TYPE_CHECKING:
    from PIL import Image

STAGES = ("decode", "preprocess", "tokenise", "run", "postprocess")

_Result = TypeVar("_Result")


class StagedPredictor(Predictor):
    """A predictor that adds up how long each of its steps took. For one thread.

    The steps are those of `Predictor`, timed as `predict` calls them: there is no second path to measure. The clock
    adds about a microsecond to a prediction.

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

    def _decode(self, source: ImageSource) -> "Image.Image":
        return self._timed("decode", super()._decode, source)

    def _preprocess(self, image: "Image.Image", out: Pixels) -> None:
        self._timed("preprocess", super()._preprocess, image, out)

    def _tokenise(self, captions: list[str | None]) -> tuple[npt.NDArray[np.int64], ...]:
        return self._timed("tokenise", super()._tokenise, captions)

    def _run_graph(self, pixels: Pixels, tokens: tuple[npt.NDArray[np.int64], ...]) -> npt.NDArray[np.float32]:
        return self._timed("run", super()._run_graph, pixels, tokens)

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
class StageReport:
    """What was measured, how, and where.

    Attributes:
        labels: what was predicted.
        stages: in the order of STAGES; a model that reads no caption spends next to nothing on "tokenise".
        predict: the whole call of `Predictor.predict`; more than the stages together, by its checks.
        overhead: the time of `predict` outside "run" over the time of "run": the median over the runs.
        overhead_p10: its spread; also `overhead_p90`.
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

    def to_dict(self) -> dict[str, Any]:
        """The same content, ready for `json.dumps`."""
        return asdict(self)


def measure_stages(
    predictor: StagedPredictor,
    *,
    image: ImageSource | None = None,
    caption: str | None = None,
    runs: int = 50,
    warmup: int = 10,
    progress: Callable[[], object] = lambda: None,
) -> StageReport:
    """Measure predictions of one picture, one after the other, warm and in this process.

    Args:
        predictor: the loaded model.
        image: a path (its file is read each time) or any other source; None means `feed.synthetic_jpeg`.
        caption: None means `feed.DEFAULT_CAPTION` for a model that reads captions.
        runs: measured predictions, >= 1.
        warmup: predictions before them, >= 1.
        progress: called after every prediction, warm-up included.

    Raises:
        InputError: a number out of range, or a picture or caption that cannot be used.
        PackageError: the graph failed.
    """
    require_positive(runs=runs, warmup=warmup)
    notes = busy_notes()
    if image is None:
        image, picture = synthetic_jpeg()
    else:
        picture = os.fspath(image) if isinstance(image, (str, os.PathLike)) else "from memory"
    if caption is None and predictor.manifest.text is not None:
        caption = DEFAULT_CAPTION
    rows: list[list[float]] = []
    for turn in range(-warmup, runs):
        predictor.restart()
        start = time.perf_counter()
        prediction = predictor.predict(image, caption)
        whole = time.perf_counter() - start
        if turn >= 0:
            rows.append([*predictor.seconds.values(), whole])
        progress()
    *stages, predict = np.array(rows, dtype=np.float64).T
    run = stages[STAGES.index("run")]
    p10, p50, p90 = (round(float(share), 4) for share in np.percentile((predict - run) / run, (10, 50, 90)))
    return StageReport(
        model=predictor.manifest.title,
        precision=predictor.precision,
        provider=predictor.session.provider,
        threads=predictor.session.threads,
        warmup=warmup,
        runs=runs,
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
