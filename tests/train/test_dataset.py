import dataclasses
import gc
import json
import os
import signal
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import get_worker_info

from mlic_runtime.base.override import override
from mlic_runtime.caption.tokenizer import CaptionTokenizer
from mlic_runtime.errors import ImageError, MlicError
from mlic_runtime.package.manifest import ImageSpec, TextSpec
from mlic_runtime.picture.decode import read_pixels
from mlic_train.batches.dataset import (
    Example,
    Examples,
    Key,
    batch_loader,
    evaluation_batches,
    plan_epoch,
    reading_errors,
)
from mlic_train.batches.transforms import flip, random_crop
from mlic_train.captions.tokenizer import train_tokenizer, vocabulary_size
from mlic_train.config import DataOptions, TrainConfig
from mlic_train.data import Record
from mlic_train.data.splits import load_splits
from mlic_train.errors import DataError, TrainError

SPEC = ImageSpec(16, 16)
PLAIN = TrainConfig(drop_caption=0.0, drop_picture=0.0, horizontal_flip=False)


@pytest.fixture(scope="module")
def records(colours: Path) -> tuple[Record, ...]:
    return load_splits(DataOptions(colours)).train.records


@pytest.fixture(scope="module")
def tokenizer(records: tuple[Record, ...]) -> CaptionTokenizer:
    data = train_tokenizer(caption for record in records for caption in record.captions)
    return CaptionTokenizer(data, TextSpec(8, vocabulary_size(data)))


def test_evaluation_sees_exactly_the_runtimes_pixels(records: tuple[Record, ...]) -> None:
    example = Examples(records, 3, SPEC)[0, 0]
    assert isinstance(records[0].image, Path)
    np.testing.assert_array_equal(example.pixels, read_pixels(records[0].image, SPEC))
    assert example.caption == records[0].captions[0]
    assert example.target.nonzero()[0].tolist() == list(records[0].labels or ())


def test_an_example_depends_on_seed_epoch_and_record_only(records: tuple[Record, ...]) -> None:
    config = dataclasses.replace(PLAIN, random_crop=0.3, horizontal_flip=True)
    first, second = (Examples(records, 3, SPEC, config) for _ in range(2))
    second[0, 5]  # another history
    seen = [pixels.tobytes() for epoch in range(5) if (pixels := first[epoch, 0].pixels) is not None]
    again = [pixels.tobytes() for epoch in range(5) if (pixels := second[epoch, 0].pixels) is not None]
    assert seen == again
    assert len(set(seen)) > 1


def test_captions_and_pictures_are_dropped_as_often_as_asked(records: tuple[Record, ...]) -> None:
    config = dataclasses.replace(PLAIN, drop_caption=0.3, drop_picture=0.2)
    index = next(i for i, record in enumerate(records) if record.captions and record.image)
    drawn = [Examples(records, 3, SPEC, config)[epoch, index] for epoch in range(400)]
    assert np.mean([example.caption is None for example in drawn]) == pytest.approx(0.3, abs=0.07)
    assert np.mean([example.pixels is None for example in drawn]) == pytest.approx(0.2, abs=0.07)
    assert not any(example.caption is None and example.pixels is None for example in drawn)


def test_batches_are_of_one_kind_and_cover_every_row_once(records: tuple[Record, ...]) -> None:
    config = dataclasses.replace(PLAIN, batch_size=8, text_batch_size=5)
    plan = plan_epoch(records, config, epoch=2)
    for batch in plan:
        assert len({records[index].image is None for _, index in batch}) == 1
    assert sorted(index for batch in plan for _, index in batch) == list(range(len(records)))
    assert {epoch for batch in plan for epoch, _ in batch} == {2}
    assert plan == plan_epoch(records, config, epoch=2)
    assert plan != plan_epoch(records, config, epoch=3)


@pytest.mark.parametrize("shuffle_shards", [0, 1])
def test_a_picture_that_would_be_the_last_batch_joins_the_one_before(
    records: tuple[Record, ...], shuffle_shards: int
) -> None:
    config = dataclasses.replace(PLAIN, batch_size=7, text_batch_size=17, shuffle_shards=shuffle_shards)
    plan = plan_epoch(records, config, 0)  # of 36 pictures and 18 captions
    sizes = {kind: sorted(len(b) for b in plan if (records[b[0][1]].image is None) is kind) for kind in (False, True)}
    assert sizes == {False: [7, 7, 7, 7, 8], True: [1, 17]}
    assert sorted(index for batch in plan for _, index in batch) == list(range(len(records)))


def test_single_pictures_stay_where_nothing_else_is_possible(records: tuple[Record, ...]) -> None:
    pictures = [record for record in records if record.image is not None]
    assert [len(batch) for batch in plan_epoch(pictures, dataclasses.replace(PLAIN, batch_size=1), 0)] == [1] * 36
    assert [len(batch) for batch in plan_epoch(pictures[:1], dataclasses.replace(PLAIN, batch_size=7), 0)] == [1]


def test_an_epoch_can_draw_a_part_of_the_captions(records: tuple[Record, ...]) -> None:
    config = dataclasses.replace(PLAIN, text_rows_per_epoch=7)
    drawn = [i for batch in plan_epoch(records, config, 0) for _, i in batch if records[i].image is None]
    assert len(drawn) == 7


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_of_captions_pays_for_no_picture(
    records: tuple[Record, ...], tokenizer: CaptionTokenizer, workers: int
) -> None:
    examples = Examples(records, 3, SPEC, PLAIN)
    texts = [(0, i) for i, record in enumerate(records) if record.image is None][:4]
    pictures = [(0, i) for i, record in enumerate(records) if record.image is not None][:6]
    first, second = batch_loader(examples, tokenizer, [texts, pictures], workers)
    assert first.pixels is None and first.has_picture is None  # noqa: PT018 # one statement about one batch
    assert first.input_ids.shape == first.attention_mask.shape
    assert second.pixels.shape == (6, 16, 16, 3)
    assert second.has_picture.all()
    assert second.targets.dtype == torch.float32


def test_a_row_that_lost_its_picture_is_all_zeros_and_marked(
    records: tuple[Record, ...], tokenizer: CaptionTokenizer
) -> None:
    config = dataclasses.replace(PLAIN, drop_picture=0.5)
    keys = [(0, i) for i, record in enumerate(records) if record.image is not None]
    (batch,) = batch_loader(Examples(records, 3, SPEC, config), tokenizer, [keys])
    lost = ~batch.has_picture
    assert 0 < lost.sum() < len(keys)
    assert (batch.pixels[lost] == 0).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_cannot_be_read_is_one_line_wherever_it_was_to_be_read(
    records: tuple[Record, ...], tokenizer: CaptionTokenizer, workers: int, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_text("no picture")
    broken = [*records[:3], dataclasses.replace(records[3], image=tmp_path / "a.png")]
    loader = batch_loader(Examples(broken, 3, SPEC), tokenizer, evaluation_batches(4, 2), workers)
    with pytest.raises(ImageError) as error:
        list(loader)
    assert str(error.value).startswith(f"cannot read picture '{tmp_path / 'a.png'}': it is not a picture")
    row = f"({broken[3].file}:record {broken[3].number}); mend it, or leave such rows out with --skip-bad-rows"
    assert str(error.value).endswith(row)
    assert "\n" not in str(error.value)


class _Dying(Examples):
    """Examples whose reading process is killed at the third batch, as the system does where memory is short."""

    @override
    def __getitems__(self, keys: list[Key]) -> "list[Example] | MlicError":
        if get_worker_info() is not None and (0, 4) in keys:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitems__(keys)


def assert_names_the_cure(error: BaseException) -> None:
    assert "/dev/shm" in str(error)
    assert "--workers" in str(error)
    assert "\n" not in str(error)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a socket that the dead process shared
@pytest.mark.usefixtures("at_most_a_minute")
def test_a_reading_process_that_dies_is_one_line(records: tuple[Record, ...], tokenizer: CaptionTokenizer) -> None:
    loader = batch_loader(_Dying(records, 3, SPEC), tokenizer, evaluation_batches(8, 2), workers=2)
    with pytest.raises(TrainError) as error, reading_errors():
        list(loader)
    assert_names_the_cure(error.value)
    del loader
    gc.collect()  # here, so that what is left of that process does not disturb the next test


@pytest.mark.usefixtures("at_most_a_minute")
def test_full_shared_memory_is_one_line(
    records: tuple[Record, ...], tokenizer: CaptionTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: torch.Tensor) -> None:
        raise RuntimeError(
            "unable to allocate shared memory(shm) for file </torch_1_2_1>: No space left on device (28)"
        )

    monkeypatch.setattr(torch.Tensor, "share_memory_", fail)
    with pytest.raises(TrainError) as error:
        list(batch_loader(Examples(records, 3, SPEC), tokenizer, evaluation_batches(8, 2), workers=2))
    assert_names_the_cure(error.value)


@pytest.mark.parametrize(
    "message",
    [
        "DataLoader worker (pid(s) 18036, 18037) exited unexpectedly",
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
        "shared memory. Please try to raise your shared memory limit.",
        "Caught RuntimeError in DataLoader worker process 0.\nTraceback: ...\nRuntimeError: unable to write to file "
        "</torch_7_1_0>: No space left on device (28)",
        "unable to allocate shared memory(shm) for file </torch_7_1_0>: No space left on device (28)",
        "unable to mmap 65536 bytes from file </torch_7_1_0>: Cannot allocate memory (12)",
    ],
)
def test_what_pytorch_says_of_a_dead_worker_becomes_one_line(message: str) -> None:
    with pytest.raises(TrainError) as error, reading_errors():
        raise RuntimeError(message)
    assert_names_the_cure(error.value)


def test_other_errors_of_a_block_stay() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"), reading_errors():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_evaluation_batches_keep_the_order() -> None:
    assert evaluation_batches(5, 2) == [[(0, 0), (0, 1)], [(0, 2), (0, 3)], [(0, 4)]]


def test_a_random_crop_covers_at_least_what_was_asked() -> None:
    image = Image.new("RGB", (100, 80))
    for seed in range(50):
        cut = random_crop(image, 0.5, np.random.default_rng(seed))
        assert 0.49 * 8000 <= cut.width * cut.height <= 8000
    assert random_crop(image, 1.0, np.random.default_rng(0)) is image


def test_a_random_crop_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    random_crop(Image.new("RGB", (50, 50)), 0.5, np.random.default_rng(0))
    assert torch.equal(torch.rand(1), expected)


def test_flips_mirror_the_right_axis() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    np.testing.assert_array_equal(flip(pixels, True, False)[0, 0], pixels[0, 1])
    np.testing.assert_array_equal(flip(pixels, False, True)[0, 0], pixels[1, 0])
    np.testing.assert_array_equal(flip(pixels, False, False), pixels)


def test_the_tokenizer_is_the_same_every_time_and_lower_cases() -> None:
    captions = ["A Dog runs.", "two dogs run", "Café tables & chairs"] * 3
    data = train_tokenizer(captions)
    assert data == train_tokenizer(captions)
    encode = CaptionTokenizer(data, TextSpec(16, vocabulary_size(data))).encode
    assert encode(["A DOG runs."])[0].tolist() == encode(["a dog runs."])[0].tolist()
    assert encode(["cafe"])[0].tolist() != encode(["Café"])[0].tolist()


@pytest.mark.parametrize(
    ("word", "other"),
    [
        ("कि", "की"), ("कुल", "कल"), ("दिन", "दीन"),  # Devanagari vowel signs
        ("กิน", "กีน"), ("ใกล้", "ใกล"),  # Thai vowels and tones
        ("كَتَبَ", "كُتِبَ"),  # Arabic
        ("ma", "má"), ("mà", "mã"), ("mạ", "mả"),  # Vietnamese tones
        ("s\u0131k", "sik"), ("\u0131s\u0131", "isi"),  # Turkish: without and with a dot
        ("può", "puo"), ("schon", "schön"), ("año", "ano"),
        ("நகம்", "நாகம்"), ("שָׁנָה", "שִׁנָּה"),  # Tamil, Hebrew
        ("\u0646\u200c\u0645", "\u0646\u0645"),  # Persian: the joiner that divides
    ],
)  # fmt: skip
def test_marks_that_tell_words_apart_stay(word: str, other: str) -> None:
    data = train_tokenizer([word, other] * 3)
    ids, _ = CaptionTokenizer(data, TextSpec(16, vocabulary_size(data))).encode([word, other])
    assert ids[0].tolist() != ids[1].tolist()
    assert 1 not in ids  # nothing is unknown


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("CAFÉ", "cafe\u0301"), ("Tiếng Việt", unicodedata.normalize("NFD", "tiếng việt")), ("İSTANBUL", "istanbul"),
        ("J\u030c", "ǰ"), ("a\u00adb", "ab"), ("\ufeffab", "ab"), ("a\x07b", "ab"), ("❤\ufe0f", "❤"),
        ("one\u200btwo", "one two"), ("one\ttwo\nthree\u00a0four", "one two three four"),
    ],
)  # fmt: skip
def test_what_is_written_in_two_ways_is_one_caption(text: str, same: str) -> None:
    data = train_tokenizer([same] * 3)
    ids, _ = CaptionTokenizer(data, TextSpec(32, vocabulary_size(data))).encode([text, same])
    assert ids[0].tolist() == ids[1].tolist()
    assert 1 not in ids


def test_the_file_of_the_tokenizer_says_how_captions_are_normalized() -> None:
    file = json.loads(train_tokenizer(["a dog"] * 3))
    kinds = [step["type"] for step in file["normalizer"]["normalizers"]]
    assert kinds == ["Replace", "Replace", "BertNormalizer", "NFC", "Replace"]
    assert file["normalizer"]["normalizers"][2]["strip_accents"] is False


def test_a_tokenizer_needs_captions() -> None:
    with pytest.raises(DataError, match="no captions to train a tokenizer on"):
        train_tokenizer(["", "  "])
