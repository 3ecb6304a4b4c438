import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlic_runtime.bench.inputs import DEFAULT_CAPTION, BenchOptions, synthetic_jpeg
from mlic_runtime.bench.stages import STAGES, StagedPredictor, measure_stages
from mlic_runtime.errors import CaptionError, ImageError, InputError
from mlic_runtime.package.model_package import ModelPackage, load_package
from mlic_runtime.predict.predictor import Predictor


@pytest.fixture
def staged(tiny: Path) -> StagedPredictor:
    return StagedPredictor.load(tiny, threads=1)


@pytest.fixture
def package(tiny: Path) -> ModelPackage:
    return load_package(tiny)


def test_every_stage_is_timed_once_and_the_report_says_how(package: ModelPackage) -> None:
    rounds: list[None] = []
    report = measure_stages(package, BenchOptions(threads=1, runs=3, warmup=2), progress=lambda: rounds.append(None))
    assert len(rounds) == 5
    assert (report.model, report.precision, report.provider, report.threads) == ("tiny@1.0.0", "fp32", "cpu", 1)
    assert (report.runs, report.warmup, report.caption) == (3, 2, DEFAULT_CAPTION)
    assert report.picture == "synthetic: JPEG of 640 x 480 pixels, smooth noise, seed 0"
    assert tuple(stage.name for stage in report.stages) == STAGES
    assert STAGES == ("decode", "preprocess", "tokenise", "run", "postprocess")
    for stage in (*report.stages, report.predict):
        assert 0 < stage.p50_ms <= stage.p90_ms
    assert max(stage.p50_ms for stage in report.stages) < report.predict.p50_ms
    assert 0 < report.overhead_p10 <= report.overhead <= report.overhead_p90
    assert report.notes == ()
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["predict"]["name"] == "predict"


def test_what_is_measured_is_what_predict_does(staged: StagedPredictor, package: ModelPackage, tiny: Path) -> None:
    picture, _ = synthetic_jpeg()
    for image, caption in ((picture, "bright red"), (picture, None), (None, "blue")):
        staged.restart()
        assert staged.predict(image, caption) == Predictor.load(tiny).predict(image, caption)
        idle = {stage for stage, seconds in staged.seconds.items() if seconds == 0}
        assert idle == (set() if image else {"decode", "preprocess"})
    report = measure_stages(
        package, BenchOptions(image=np.full((6, 8, 3), (255, 0, 0), np.uint8), caption="red", runs=1, warmup=1)
    )
    assert (report.picture, report.labels) == ("from memory", ("red",))


def test_stages_add_up_until_the_next_start(staged: StagedPredictor) -> None:
    staged.predict(None, "red")
    once = dict(staged.seconds)
    staged.predict(None, "red")
    assert all(staged.seconds[stage] > once[stage] for stage in ("tokenise", "run", "postprocess"))
    staged.restart()
    assert staged.seconds == dict.fromkeys(STAGES, 0.0)


def test_a_model_without_captions_has_the_same_stages(tiny_picture: Path) -> None:
    package = load_package(tiny_picture)
    report = measure_stages(package, BenchOptions(runs=1, warmup=1))
    assert report.caption is None
    assert tuple(stage.name for stage in report.stages) == STAGES
    with pytest.raises(CaptionError, match="reads no caption"):
        measure_stages(package, BenchOptions(caption="red"))


def test_bad_input_is_refused(package: ModelPackage) -> None:
    with pytest.raises(ImageError, match="no such file"):
        measure_stages(package, BenchOptions(image="missing.jpg"))
    for name in ("runs", "warmup"):
        with pytest.raises(InputError, match=f"{name} must be 1 or more, found 0"):
            measure_stages(package, BenchOptions(**{name: 0}))  # type: ignore[arg-type] # one of two ints


def test_the_made_up_picture_is_a_jpeg_and_always_the_same() -> None:
    content, said = synthetic_jpeg()
    assert (content, said) == synthetic_jpeg()
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.size) == ("JPEG", (640, 480))
