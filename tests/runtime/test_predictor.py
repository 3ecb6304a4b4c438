import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from mlic_runtime.errors import CaptionError, ImageError, InputError, IntegrityError, ManifestError, PackageError
from mlic_runtime.graph.opening import open_graph
from mlic_runtime.package.model_package import ModelPackage, load_package
from mlic_runtime.predict.predictor import Predictor

Pixels = npt.NDArray[np.uint8]
Edit = Callable[[dict[str, Any]], object]
Logits = Callable[..., npt.NDArray[np.float32]]

LABELS = ("red", "green", "blue")


@pytest.fixture
def predictor(tiny: Path) -> Predictor:
    return Predictor.load(tiny, threads=1)


@pytest.fixture
def orange() -> Pixels:
    """uint8 (6, 8, 3), the size of the tiny model, so that no resizing changes it."""
    return np.full((6, 8, 3), (255, 128, 0), dtype=np.uint8)


@pytest.fixture
def pictures() -> list[Pixels]:
    return list(np.random.default_rng(3).integers(0, 256, (7, 6, 8, 3), dtype=np.uint8))


def probabilities(logits: npt.NDArray[np.float32]) -> dict[str, float]:
    return dict(zip(LABELS, (1 / (1 + np.exp(-logits.astype(float)))).tolist(), strict=True))


def test_picture_and_caption_are_both_read(predictor: Predictor, orange: Pixels, tiny_logits: Logits) -> None:
    for caption in ("", "bright", "no green", "bright blue red"):
        found = predictor.predict(orange, caption)
        assert found.probabilities == pytest.approx(probabilities(tiny_logits(orange, caption)), abs=1e-6)


def test_a_prediction_says_what_was_given_and_found(predictor: Predictor, orange: Pixels, tmp_path: Path) -> None:
    Image.fromarray(orange).save(tmp_path / "orange.png")
    found = predictor.predict(tmp_path / "orange.png", "no")
    assert found.image == str(tmp_path / "orange.png")
    assert found.caption == "no"
    assert found.model == "tiny@1.0.0"
    assert list(found.probabilities) == ["red", "green", "blue"]
    assert found.labels == ()
    assert predictor.predict(tmp_path / "orange.png").labels == ("red",)
    assert predictor.predict(orange).image is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.model = "other"  # type: ignore[misc] # the point of the test


def test_each_label_has_its_own_threshold(predictor: Predictor) -> None:
    grey = np.full((6, 8, 3), 127.5 + 0.5, dtype=np.uint8)  # every probability is 0.502
    assert predictor.predict(grey).labels == ("red", "blue")
    assert predictor.predict(grey, threshold=0.6).labels == ()
    assert predictor.predict(grey, threshold=0.0).labels == LABELS


def test_top_k_limits_the_probabilities_and_not_the_labels(predictor: Predictor, orange: Pixels) -> None:
    found = predictor.predict(orange, "bright blue", top_k=1)
    assert list(found.probabilities) == ["red"]
    assert set(found.labels) == {"red", "green", "blue"}
    assert len(predictor.predict(orange, top_k=99).probabilities) == 3


def test_a_caption_alone_is_enough(predictor: Predictor, tiny_logits: Logits) -> None:
    black = np.zeros((6, 8, 3), dtype=np.uint8)
    found = predictor.predict(caption="green")
    assert found.probabilities == pytest.approx(probabilities(tiny_logits(black, "green")), abs=1e-6)
    assert found.image is None


@pytest.mark.parametrize("caption", [None, "", "  "])
def test_nothing_at_all_is_refused(predictor: Predictor, caption: "str | None") -> None:
    with pytest.raises(InputError, match="neither a picture nor a caption"):
        predictor.predict(None, caption)


def test_a_model_without_captions_reads_only_pictures(tiny_picture: Path, orange: Pixels, tiny_logits: Logits) -> None:
    predictor = Predictor.load(tiny_picture)
    assert predictor.predict(orange).probabilities == pytest.approx(probabilities(tiny_logits(orange)), abs=1e-6)
    assert predictor.predict_many([orange], [None])[0] == predictor.predict(orange)
    with pytest.raises(CaptionError, match=r"tiny-picture@1\.0\.0 reads no caption"):
        predictor.predict(orange, "red")
    with pytest.raises(ImageError, match="reads only a picture, and none was given"):
        predictor.predict()


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
def test_batches_give_the_same_answers(predictor: Predictor, pictures: list[Pixels], batch_size: int) -> None:
    captions = ["red", None, "no blue bright", "", "green green", "bright", "unknown words here"]
    alone = [predictor.predict(image, caption) for image, caption in zip(pictures, captions, strict=True)]
    together = predictor.predict_many(pictures, captions, batch_size=batch_size)
    assert [p.labels for p in together] == [p.labels for p in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)


def test_many_pictures_may_come_as_one_array_and_without_captions(predictor: Predictor, pictures: list[Pixels]) -> None:
    together = predictor.predict_many(np.stack(pictures))  # type: ignore[arg-type] # works, but is no Sequence by type
    assert together == predictor.predict_many(pictures, None)


def test_no_pictures_give_no_predictions(predictor: Predictor) -> None:
    assert predictor.predict_many([]) == []


def test_pictures_are_read_when_their_batch_is_due(
    predictor: Predictor, pictures: list[Pixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list may produce its pictures on access; more than a batch at a time would not fit into memory."""
    asked: list[int] = []

    class Lazy(list[Pixels]):
        def __getitem__(self, index: Any) -> Any:
            asked.append(index)
            assert len(asked) <= runs[-1] + 2
            return super().__getitem__(index)

    runs = [0]
    run = predictor.session.run

    def count(*feed: Any) -> Any:
        runs.append(len(asked))
        return run(*feed)

    monkeypatch.setattr(predictor.session, "run", count)
    predictor.predict_many(Lazy(pictures), batch_size=2)
    assert runs == [0, 2, 4, 6, 7]


def test_the_lengths_must_match(predictor: Predictor, orange: Pixels) -> None:
    with pytest.raises(InputError, match="found 2 images but 1 captions"):
        predictor.predict_many([orange, orange], ["red"])


def test_one_text_is_not_a_list(predictor: Predictor, orange: Pixels) -> None:
    with pytest.raises(InputError, match="use predict for one"):
        predictor.predict_many("picture.jpg")
    with pytest.raises(InputError, match="use predict for one"):
        predictor.predict_many([orange], "red")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.1}, r"threshold must be in \[0, 1\], found 1.1"),
        ({"threshold": float("nan")}, "found nan"),
        ({"top_k": 0}, "top_k must be 1 or more"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
    ],
)
def test_options_out_of_range_are_refused(
    predictor: Predictor, orange: Pixels, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        predictor.predict_many([orange], **options)


def test_a_bad_picture_or_caption_is_named(predictor: Predictor, orange: Pixels, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"'missing\.jpg': there is no such file"):
        predictor.predict("missing.jpg")
    with pytest.raises(CaptionError, match="found int"):
        predictor.predict(orange, 7)  # type: ignore[arg-type] # the point of the test


def test_the_limit_for_pictures_can_be_set(tiny: Path, orange: Pixels) -> None:
    with pytest.raises(ImageError, match="limit of 47"):
        Predictor.load(tiny, max_pixels=47).predict(orange)


def test_every_precision_can_be_asked_for(tiny: Path, orange: Pixels) -> None:
    expected = Predictor.load(tiny).predict(orange, "red")
    assert Predictor.load(tiny, precision="fp32").predict(orange, "red") == expected
    assert Predictor.load(tiny, precision="fp16").predict(orange, "red") == expected
    with pytest.raises(ManifestError, match="no int8 graph; it has: fp32, fp16"):
        Predictor.load(tiny, precision="int8")


def test_the_default_model_comes_from_the_environment(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLIC_MODEL", str(tiny))
    with Predictor.load() as predictor:
        assert predictor.labels == LABELS
        assert predictor.manifest.name == "tiny"


# --- packages that contradict themselves


def test_as_many_labels_as_the_graph_has_outputs(tiny_copy: Path, edit_manifest: Callable[[Path, Edit], None]) -> None:
    edit_manifest(tiny_copy, lambda data: data["labels"].pop())
    with pytest.raises(PackageError, match="graph of tiny has 3 outputs, but the manifest has 2 labels"):
        Predictor.load(tiny_copy)


def test_the_labels_are_counted_again_in_every_answer(tiny_picture: Path, orange: Pixels) -> None:
    package = load_package(tiny_picture)
    fewer = dataclasses.replace(package.manifest, labels=package.manifest.labels[:2])
    graph = open_graph(package)
    with pytest.raises(PackageError, match=r"gave logits of shape \(1, 3\), expected \(1, 2\)"):
        Predictor(ModelPackage(package.path, fewer), graph, None).predict(orange)


def test_the_graph_takes_the_size_of_the_manifest(tiny_copy: Path, edit_manifest: Callable[[Path, Edit], None]) -> None:
    edit_manifest(tiny_copy, lambda data: data["image"].update(height=8, width=6))
    with pytest.raises(PackageError, match=r"takes pictures of \(6, 8\) pixels .* the manifest says \(8, 6\)"):
        Predictor.load(tiny_copy)


def test_the_graph_and_the_manifest_agree_about_captions(
    tiny_picture_copy: Path, tiny: Path, replace_file: Callable[[Path, str, bytes], None]
) -> None:
    replace_file(tiny_picture_copy, "model.fp32.onnx", (tiny / "model.fp32.onnx").read_bytes())
    with pytest.raises(PackageError, match="reads a caption, but the manifest says otherwise"):
        Predictor.load(tiny_picture_copy)


@pytest.mark.parametrize("name", ["model.fp32.onnx", "tokenizer.json"])
def test_what_is_used_is_verified(tiny_copy: Path, name: str) -> None:
    data = (tiny_copy / name).read_bytes()
    (tiny_copy / name).write_bytes(data[:-1] + b"!")
    with pytest.raises(IntegrityError, match=f"{name} has sha256"):
        Predictor.load(tiny_copy)
