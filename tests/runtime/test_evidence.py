import numpy as np
import numpy.typing as npt

from mlic_runtime.predict.evidence import OCCLUSION_CELLS, by_occlusion

LABELS = ("bright", "word 7")


def run(
    pixels: npt.NDArray[np.uint8], ids: npt.NDArray[np.int64] | None, mask: npt.NDArray[np.int64] | None
) -> npt.NDArray[np.float32]:
    """A graph whose logits are known: the mean of the red pixels, and how often token 7 is read."""
    sevens = np.zeros(len(pixels)) if ids is None or mask is None else ((ids == 7) & (mask == 1)).sum(axis=1)
    return np.stack([pixels[..., 0].mean(axis=(1, 2)), sevens], axis=1).astype(np.float32)


def test_occlusion_finds_the_place_and_the_word() -> None:
    pixels = np.full((1, 70, 70, 3), 128, dtype=np.uint8)
    pixels[0, 10:20, 50:60] = 255
    ids, mask = np.array([[5, 7, 8, 7]]), np.ones((1, 4), dtype=np.int64)
    spans = [None, (0, 2), (0, 2), (3, 6)]  # a special token, a word of two tokens, another word
    found = by_occlusion(run, pixels, ids, mask, LABELS, "ab cde", spans, has_picture=True)
    assert found.method == "occlusion"
    assert found.picture is not None
    assert found.caption is not None
    assert found.picture["bright"].shape == (OCCLUSION_CELLS, OCCLUSION_CELLS)
    assert divmod(int(found.picture["bright"].argmax()), OCCLUSION_CELLS) == (1, 5)
    assert np.count_nonzero(found.picture["bright"]) == 1
    assert not found.picture["word 7"].any()
    assert found.words == ("ab", "cde")
    assert found.caption["word 7"].tolist() == [1, 1]


def test_occlusion_of_the_only_word_is_a_row_without_caption() -> None:
    pixels = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    ids, mask = np.array([[7, 1]]), np.ones((1, 2), dtype=np.int64)
    found = by_occlusion(run, pixels, ids, mask, LABELS, "ab", [(0, 2), None], has_picture=False)
    assert found.picture is None
    assert found.caption is not None
    assert found.caption["word 7"].tolist() == [1]
