import csv
import dataclasses
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from mlic_runtime.predict.prediction import sigmoid
from mlic_train.batches.dataset import Examples, batch_loader, evaluation_batches
from mlic_train.captions.tokenizer import train_tokenizer, vocabulary_size
from mlic_train.config import DataOptions, Distillation, ModelConfig, TrainConfig
from mlic_train.data import Record, fingerprint
from mlic_train.data.splits import Splits, load_splits
from mlic_train.errors import CheckpointError, ConfigError, DataError
from mlic_train.models import create_model
from mlic_train.models.base import PictureModel
from mlic_train.runs.folder import (
    BEST_NAME,
    CONFIG_NAME,
    LAST_NAME,
    RunConfig,
    State,
    TrainedModel,
    checkpoint_digest,
    load_checkpoint,
    read_run_config,
    save_checkpoint,
    write_run_config,
)
from mlic_train.training.distillation import SOFT_LABELS_NAME, read_soft_labels, teach, write_soft_labels
from mlic_train.training.fit import FitData
from mlic_train.training.learner import Learner
from mlic_train.training.optimizer import set_learning_rate
from mlic_train.training.run import resume_run, train_run
from mlic_train.training.teacher import load_teachers, soft_labels

Draw = Callable[..., Path]
Teacher = Callable[..., Path]
WORDS = ("red", "green", "blue", "wall", "a", "thing", "number", "and", "one", "in")


@pytest.fixture(scope="module")
def splits(colours: Path) -> Splits:
    return load_splits(DataOptions(colours))


@pytest.fixture
def teacher(tmp_path: Path, small_model: ModelConfig) -> Teacher:
    """Make a run folder of a model with random weights, calibration included, that answers differently per seed."""

    def make(folder_name: str, seed: int = 0, **changes: Any) -> Path:
        tokenizer = train_tokenizer([" ".join(WORDS)] * 3)
        config = dataclasses.replace(small_model, vocab_size=vocabulary_size(tokenizer), **changes)
        torch.manual_seed(seed)
        model = create_model(config)
        weights = {
            key: value + torch.randn_like(value) if value.is_floating_point() and "backbone" not in key else value
            for key, value in model.state_dict().items()
        }
        weights["calibration.empty_odds"] = torch.tensor(0.5)  # in (0, 1], unlike the rest
        folder = tmp_path / folder_name
        write_run_config(folder, RunConfig(config, TrainConfig()), tokenizer if config.reads_captions else None)
        save_checkpoint(folder / BEST_NAME, weights, State())
        return folder

    return make


@pytest.fixture
def pseudo(tmp_path: Path, draw: Draw) -> Path:
    """Six pictures with five captions each, a row per caption, no labels."""
    rows = [("ImageID", "Caption")]
    for index in range(6):
        draw(tmp_path / "more" / "images" / f"p{index}.png", seed=100 + index, size=(20, 20))
        rows += [(f"p{index}.png", f"{WORDS[(index + n) % 10]} {WORDS[n]} {n * 'wall '}") for n in range(5)]
    return write(tmp_path / "more" / "captions.csv", rows)


def write(file: Path, rows: Iterable[Sequence[str]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows(rows)
    return file


def one_by_one(records: Sequence[Record], teachers: Sequence[TrainedModel]) -> npt.NDArray[np.float32]:
    """What `soft_labels` promises, as a plain loop over single-row batches of records that every teacher can use."""
    rows = []
    for record in records:
        logits = []
        for teacher in teachers:
            learner = Learner(teacher.model, teacher.config.train).eval()
            views = [dataclasses.replace(record, captions=(caption,)) for caption in record.captions] or [record]
            examples = Examples(views, 3, teacher.config.model.image_spec)
            batches = batch_loader(examples, teacher.caption_tokenizer, evaluation_batches(len(views), 1))
            with torch.inference_mode():
                answers = [learner(batch) for batch in batches]
            logits.append(torch.cat(answers).double().mean(dim=0).numpy())
        rows.append(sigmoid(np.mean(logits, axis=0)))
    return np.stack(rows)


def five_captions(splits: Splits) -> list[Record]:
    """Records with a picture and five captions, with a picture alone, and with captions alone."""
    captions = ("a red wall", "green", "one thing in blue and red", "wall wall wall", "number one")
    pictures = [record for record in splits.train.records if record.image is not None][:12]
    records = [dataclasses.replace(record, captions=captions[: index % 6]) for index, record in enumerate(pictures)]
    return records + [dataclasses.replace(records[5], image=None, image_id=None)] * 2


def test_logits_are_averaged_over_captions_and_teachers(
    splits: Splits, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlic_train.training.teacher._RECORDS", 5)  # several parts, the last one smaller
    monkeypatch.setattr("mlic_train.training.teacher._CAPTIONS", 4)
    records = five_captions(splits)
    teachers = load_teachers([teacher("a", 1), teacher("b", 2, image_size=24)], splits.labels.names)
    soft = soft_labels(records, teachers)
    assert soft.dtype == np.float32
    np.testing.assert_allclose(soft, one_by_one(records, teachers), atol=1e-5)
    first = [dataclasses.replace(record, captions=record.captions[:1]) for record in records]
    for other in (soft_labels(records, teachers[:1]), soft_labels(first, teachers)):
        assert np.abs(soft - other).max() > 0.01


def test_teachers_see_what_they_are_shown(splits: Splits, teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [record for record in five_captions(splits) if record.image is not None and record.captions]
    teachers = load_teachers([teacher("a")], splits.labels.names)
    pictures = [dataclasses.replace(record, captions=()) for record in records]
    captions = [dataclasses.replace(record, image=None) for record in records]
    assert np.abs(soft_labels(pictures, teachers) - soft_labels(captions, teachers)).max() > 0.01
    np.testing.assert_allclose(soft_labels(records, teachers, "picture"), one_by_one(pictures, teachers), atol=1e-5)
    monkeypatch.delattr(PictureModel, "encode_picture")  # captions alone do not pay for the backbone
    np.testing.assert_allclose(soft_labels(records, teachers, "caption"), one_by_one(captions, teachers), atol=1e-5)


def test_a_picture_goes_through_the_backbone_once(
    splits: Splits, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = five_captions(splits)
    (one,) = load_teachers([teacher("a")], splits.labels.names)
    seen: list[int] = []
    encode = one.model.encode_picture

    def count(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(one.model, "encode_picture", count)
    steps: list[tuple[int, int]] = []
    soft_labels(records, [one], progress=lambda done, total: steps.append((done, total)))
    assert sum(seen) == sum(record.image is not None for record in records)
    assert steps[-1] == (len(records), len(records))


def test_a_teacher_is_left_out_where_it_has_nothing_to_see(splits: Splits, teacher: Teacher) -> None:
    records = five_captions(splits)
    hybrid, cnn = load_teachers([teacher("a"), teacher("b", name="cnn")], splits.labels.names)
    text_only = [index for index, record in enumerate(records) if record.image is None]
    both, alone, picture = (soft_labels(records, given) for given in ([hybrid, cnn], [hybrid], [cnn]))
    np.testing.assert_array_equal(both[text_only], alone[text_only])
    assert np.isnan(picture).all(axis=1).nonzero()[0].tolist() == text_only
    assert not np.isnan(both).any()
    # Close to 1, float32 does not hold enough of a probability to tell its logit.
    known = (np.minimum(alone, 1 - alone) > 1e-4) & (np.minimum(picture, 1 - picture) > 1e-4)
    assert known[:5].any()
    alone, picture = alone[known], picture[known]
    mean = sigmoid((np.log(alone / (1 - alone)) + np.log(picture / (1 - picture))) / 2)
    np.testing.assert_allclose(both[known], mean, atol=1e-3)


def test_rows_without_labels_join_the_training_split(splits: Splits, teacher: Teacher, pseudo: Path) -> None:
    more = write(pseudo.parent / "texts.csv", [("ImageID", "Caption"), ("gone.png", "a wall"), ("gone.png", "a thing")])
    lines: list[str] = []
    options = Distillation((teacher("a"),), (pseudo,), (more,))
    taught, notes = teach(splits, options, 0.0, "cpu", lines.append)
    own, added = taught.train.records[: len(splits.train.records)], taught.train.records[len(splits.train.records) :]
    assert own == splits.train.records
    assert [len(record.captions) for record in added] == [5] * 6 + [2]
    assert [record.image is None for record in added] == [False] * 6 + [True]
    assert all(record.labels is None for record in added)
    expected = soft_labels(added, load_teachers(options.teachers, splits.labels.names))
    np.testing.assert_allclose(np.array([record.soft for record in added]), expected, atol=1e-6)
    assert all(value == round(value, 6) for record in added for value in record.soft or () if value is not None)
    assert notes["teachers"] == f"a {checkpoint_digest(options.teachers[0])[:12]}"
    assert notes["pseudo_labelled"] == "captions.csv (6 records), texts.csv (1 records)"
    assert lines == ["soft labels of 7 training records, 7 of them without labels of their own"]
    assert (taught.val, taught.test) == (splits.val, splits.test)


def test_every_caption_of_a_pseudo_labelled_picture_is_drawn_with_its_soft_labels(
    splits: Splits, teacher: Teacher, pseudo: Path, small_train: TrainConfig
) -> None:
    taught, _ = teach(splits, Distillation((teacher("a"),), (pseudo,)), 0.0, "cpu", lambda _: None)
    record = taught.train.records[-1]
    examples = Examples([record], 3, dataclasses.replace(ModelConfig(), image_size=16).image_spec, small_train)
    drawn = [examples[epoch, 0] for epoch in range(60)]
    assert {example.caption for example in drawn} == {*record.captions, None}
    for example in drawn:
        np.testing.assert_array_equal(example.target, np.array(record.soft, np.float32))
    (batch,) = batch_loader(examples, None, [[(0, 0)]])
    np.testing.assert_array_equal(batch.targets.numpy(), np.array([record.soft], np.float32))


def test_the_teachers_weight_mixes_targets(splits: Splits, teacher: Teacher) -> None:
    options = Distillation((teacher("a"),))
    taught, notes = teach(splits, options, 0.25, "cpu", lambda _: None)
    expected = soft_labels(splits.train.records, load_teachers(options.teachers, splits.labels.names))
    assert len(taught.train.records) == len(splits.train.records)
    for record, own, row in zip(taught.train.records, splits.train.records, expected, strict=True):
        target = np.array([0.75 * (index in (own.labels or ())) for index in range(3)]) + 0.25 * row
        np.testing.assert_allclose(np.array(record.soft), target, atol=1e-6)
        assert dataclasses.replace(record, soft=None) == own
    assert "pseudo_labelled" not in notes


def test_a_row_that_no_teacher_can_see_keeps_its_labels(splits: Splits, teacher: Teacher) -> None:
    taught, _ = teach(splits, Distillation((teacher("a", name="cnn"),)), 0.5, "cpu", lambda _: None)
    assert [record.soft is None for record in taught.train.records] == [r.image is None for r in splits.train.records]


@pytest.mark.parametrize(
    ("sees", "taught_kind"), [("caption", (False, True)), ("picture", (True, False))], ids=["caption", "picture"]
)
def test_a_teacher_that_sees_less_than_the_student_leaves_the_labels_alone(
    splits: Splits, teacher: Teacher, sees: str, taught_kind: tuple[bool, bool]
) -> None:
    taught, _ = teach(splits, Distillation((teacher("a"),), sees=sees), 0.5, "cpu", lambda _: None)
    kinds = [(record.image is not None, bool(record.captions)) for record in taught.train.records]
    assert len(set(kinds)) == 3
    assert [record.soft is not None for record in taught.train.records] == [kind == taught_kind for kind in kinds]
    assert [dataclasses.replace(record, soft=None) for record in taught.train.records] == list(splits.train.records)


def test_an_unlabelled_row_that_no_teacher_can_see_is_refused(splits: Splits, teacher: Teacher, pseudo: Path) -> None:
    options = Distillation((teacher("a", name="cnn"),), (), (pseudo,))
    with pytest.raises(DataError, match=r"6 records have nothing that a teacher could see .* record 1 of .*captions"):
        teach(splits, options, 0.0, "cpu", lambda _: None)


@pytest.mark.parametrize("labels", [("blue", "green", "red"), ("red", "green", "blue", "black")])
def test_a_teacher_needs_the_datas_labels(splits: Splits, teacher: Teacher, labels: tuple[str, ...]) -> None:
    options = Distillation((teacher("a"), teacher("odd", labels=labels)))
    with pytest.raises(DataError, match=f"odd has the labels {', '.join(labels)}, the data red, green, blue"):
        teach(splits, options, 0.5, "cpu", lambda _: None)


@pytest.mark.parametrize("split", ["val", "test"])
def test_pictures_of_validation_and_test_are_not_learned_from(
    splits: Splits, teacher: Teacher, pseudo: Path, split: str
) -> None:
    images = pseudo.parent / "images"
    known = next(record.image for record in getattr(splits, split).records if record.image is not None)
    shutil.copyfile(known, images / "p2.png")
    with pytest.raises(DataError, match=rf"1 of the records to pseudo-label .*'p2.png' is also in the split '{split}'"):
        teach(splits, Distillation((teacher("a"),), (pseudo,)), 0.0, "cpu", lambda _: None)


def test_the_very_files_of_validation_are_not_learned_from(splits: Splits, teacher: Teacher, colours: Path) -> None:
    known = [record for record in splits.val.records if record.image is not None]
    rows = [("ImageID",), *((record.image_id or "",) for record in known)]
    file = write(teacher("a").parent / "known.csv", rows)
    options = Distillation((teacher("a"),), (file,), images=colours / "images")
    with pytest.raises(
        DataError, match=f"{len(known)} of the records to pseudo-label have a picture of the validation"
    ):
        teach(splits, options, 0.0, "cpu", lambda _: None)


def test_captions_of_validation_pictures_are_not_learned_from(splits: Splits, teacher: Teacher, tmp_path: Path) -> None:
    file = write(tmp_path / "c.csv", [("ImageID", "Caption"), ("val3.png", "another view"), ("new.png", "a wall")])
    with pytest.raises(DataError, match=r"1 of the records .*'val3.png' is also in the split 'val'"):
        teach(splits, Distillation((teacher("a"),), (), (file,)), 0.0, "cpu", lambda _: None)


def test_what_validation_and_test_share_is_not_the_pseudo_labels_fault(
    splits: Splits, teacher: Teacher, pseudo: Path
) -> None:
    shared = dataclasses.replace(splits, test=splits.val)
    taught, _ = teach(shared, Distillation((teacher("a"),), (pseudo,)), 0.0, "cpu", lambda _: None)
    assert len(taught.train.records) == len(splits.train.records) + 6


def test_training_pictures_may_be_pseudo_labelled(splits: Splits, teacher: Teacher, pseudo: Path) -> None:
    known = next(record.image for record in splits.train.records if isinstance(record.image, Path))
    shutil.copyfile(known, pseudo.parent / "images" / "p2.png")
    taught, _ = teach(splits, Distillation((teacher("a"),), (pseudo,)), 0.0, "cpu", lambda _: None)
    assert len(taught.train.records) == len(splits.train.records) + 6


def test_rows_with_labels_are_no_rows_to_pseudo_label(splits: Splits, teacher: Teacher, tmp_path: Path) -> None:
    file = write(tmp_path / "labelled.csv", [("Labels", "Caption"), ("", "a wall")])
    with pytest.raises(DataError, match=r"labelled\.csv: record 1 has labels; give the file as training data"):
        teach(splits, Distillation((teacher("a"),), (), (file,)), 0.0, "cpu", lambda _: None)


def test_bad_rows_can_be_left_out(splits: Splits, teacher: Teacher, pseudo: Path) -> None:
    (pseudo.parent / "images" / "p0.png").unlink()
    options = Distillation((teacher("a"),), (pseudo,))
    with pytest.raises(DataError, match=r"missing-picture: no picture at .*p0\.png"):
        teach(splits, options, 0.0, "cpu", lambda _: None)
    lines: list[str] = []
    taught, _ = teach(splits, dataclasses.replace(options, skip_bad_rows=True), 0.0, "cpu", lines.append)
    assert len(taught.train.records) == len(splits.train.records) + 5
    (line,) = [line for line in lines if line.startswith("skipped:")]
    assert line.startswith(f"skipped: 5 x missing-picture: {pseudo}:record 1: ")
    assert "skipped 5 bad rows" in lines


def test_options_that_make_no_sense_together_are_refused(splits: Splits, pseudo: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing can label the rows of .*captions\.csv: give --teacher"):
        Distillation(pseudo_label=(pseudo,))
    with pytest.raises(ConfigError, match="choose one of: both, caption, picture"):
        Distillation((tmp_path,), (pseudo,), sees="labels")
    with pytest.raises(ConfigError, match="a teacher has nothing to teach"):
        teach(splits, Distillation((tmp_path,)), 0.0, "cpu", lambda _: None)
    with pytest.raises(ConfigError, match=r"teacher_weight is 0\.5, but there is no teacher"):
        teach(splits, Distillation(), 0.5, "cpu", lambda _: None)


def test_without_a_teacher_nothing_changes(splits: Splits) -> None:
    assert teach(splits, Distillation(), 0.0, "cpu", lambda _: None) == (splits, {})


def test_what_was_written_is_what_is_read(splits: Splits, teacher: Teacher, pseudo: Path, tmp_path: Path) -> None:
    options = Distillation((teacher("a"),), (pseudo,))
    taught, notes = teach(splits, options, 0.5, "cpu", lambda _: None)
    write_soft_labels(tmp_path, taught)
    assert read_soft_labels(tmp_path, splits, notes["soft_labels_fingerprint"]) == taught


def test_the_fingerprint_covers_soft_labels(splits: Splits) -> None:
    def of(soft: tuple[float, ...] | None) -> str:
        records = (dataclasses.replace(splits.val.records[0], soft=soft), *splits.val.records[1:])
        return fingerprint({"val": dataclasses.replace(splits.val, records=records)})

    assert len({of(None), of((0.5, 0.5, 0.5)), of((0.5, 0.5, 0.500001))}) == 3


class Stopped(Exception):  # noqa: N818 # not an error
    """What `fit` raises instead of training, once it has been given its rows."""


@pytest.fixture
def given_to_fit(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[Record]]:
    """The training rows of every call of `fit`, which stops before its first step."""
    rows: list[Sequence[Record]] = []

    def stop(model: object, data: FitData, *_: object, **__: object) -> State:
        rows.append(data.train.records)
        raise Stopped

    monkeypatch.setattr("mlic_train.training.run.fit", stop)
    return rows


@pytest.fixture
def stopped(
    tmp_path: Path,
    splits: Splits,
    teacher: Teacher,
    pseudo: Path,
    small_model: ModelConfig,
    small_train: TrainConfig,
    given_to_fit: list[Sequence[Record]],
) -> Path:
    """The folder of a run that was stopped before its first step."""
    config = dataclasses.replace(small_train, teacher_weight=0.5)
    options = Distillation((teacher("a"),), (pseudo,))
    with pytest.raises(Stopped):
        train_run(tmp_path / "run", small_model, config, splits, distillation=options)
    return tmp_path / "run"


def test_training_and_resuming_are_given_what_the_teachers_said(
    stopped: Path, splits: Splits, tmp_path: Path, given_to_fit: list[Sequence[Record]]
) -> None:
    options = Distillation((tmp_path / "a",), (tmp_path / "more" / "captions.csv",))
    taught, _ = teach(splits, options, 0.5, "cpu", lambda _: None)
    with pytest.raises(Stopped):
        resume_run(stopped, splits)
    assert [tuple(rows) for rows in given_to_fit] == [taught.train.records] * 2


def test_provenance_names_teachers_and_files(
    stopped: Path, splits: Splits, tmp_path: Path, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    with pytest.raises(Stopped):
        train_run(tmp_path / "plain", small_model, small_train, splits)
    plain, taught = (read_run_config(tmp_path / name).provenance for name in ("plain", "run"))
    assert {key: value for key, value in taught.items() if key not in plain} == {
        "teachers": f"a {checkpoint_digest(tmp_path / 'a')[:12]}",
        "teacher_sees": "both",
        "pseudo_labelled": "captions.csv (6 records)",
        "soft_labels_fingerprint": taught["soft_labels_fingerprint"],
    }
    assert plain["data_fingerprint"] == taught["data_fingerprint"]
    assert not (tmp_path / "plain" / SOFT_LABELS_NAME).exists()


def test_a_run_resumed_without_teacher_and_files_equals_an_uninterrupted_one(
    tmp_path: Path,
    splits: Splits,
    teacher: Teacher,
    pseudo: Path,
    small_model: ModelConfig,
    small_train: TrainConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = 4

    def interrupt(*arguments: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGINT)
        set_learning_rate(*arguments)

    config = dataclasses.replace(small_train, epochs=1, teacher_weight=0.5)
    options = Distillation((teacher("a"),), (pseudo,))
    train_run(tmp_path / "whole", small_model, config, splits, distillation=options)
    with monkeypatch.context() as patch:
        patch.setattr("mlic_train.training.fit.set_learning_rate", interrupt)
        assert not train_run(tmp_path / "parts", small_model, config, splits, distillation=options).finished
    shutil.rmtree(tmp_path / "a")
    pseudo.unlink()
    assert resume_run(tmp_path / "parts", splits).finished
    whole, parts = (load_checkpoint(tmp_path / name / LAST_NAME).model for name in ("whole", "parts"))
    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, parts[name], rtol=0, atol=0, msg=name)


def test_resuming_refuses_other_soft_labels(stopped: Path, splits: Splits) -> None:
    file = stopped / SOFT_LABELS_NAME
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]))
    with pytest.raises(CheckpointError, match="has changed since the run started"):
        resume_run(stopped, splits)
    file.write_text("".join(lines) + "{")
    with pytest.raises(CheckpointError, match=r"soft-labels\.jsonl cannot be read"):
        resume_run(stopped, splits)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"soft-labels\.jsonl cannot be read"):
        resume_run(stopped, splits)


def test_resuming_misses_a_pseudo_labelled_picture(stopped: Path, splits: Splits, tmp_path: Path) -> None:
    (tmp_path / "more" / "images" / "p1.png").unlink()
    with pytest.raises(DataError, match=r"the picture .*p1\.png cannot be read any more"):
        resume_run(stopped, splits)


def test_a_refused_distillation_leaves_no_run_behind(
    tmp_path: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig, teacher: Teacher, pseudo: Path
) -> None:
    known = splits.val.records[0].image
    assert isinstance(known, Path)
    shutil.copyfile(known, pseudo.parent / "images" / "p0.png")
    options = Distillation((teacher("a"),), (pseudo,))
    with pytest.raises(DataError, match="1 of the records to pseudo-label"):
        train_run(tmp_path / "run", small_model, small_train, splits, distillation=options)
    assert not (tmp_path / "run" / CONFIG_NAME).exists()
