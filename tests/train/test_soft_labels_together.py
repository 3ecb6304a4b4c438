"""Soft labels from files beside the rest: teachers, shards, cached features, sweeps, resuming."""

import json
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from mlic_train.batches.dataset import target_of
from mlic_train.cli.sweep import sweep
from mlic_train.cli.train import train
from mlic_train.config import DataOptions, Distillation
from mlic_train.data.shard_writer import write_shards
from mlic_train.data.splits import Splits, load_splits
from mlic_train.runs.folder import LAST_NAME, load_checkpoint, load_trained, save_half
from mlic_train.training.distillation import SOFT_LABELS_NAME, teach

Draw = Callable[..., Path]
SMALL = ["--preset", "none", "--image-size", "16", "--width", "16", "--num-layers", "1", "--num-heads", "2"]
SMALL += ["--batch-size", "16", "--text-batch-size", "8", "--device", "cpu", "--calibration", "none"]


def run(command: click.Command, *arguments: object) -> Result:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


def equal_weights(one: Path, other: Path) -> bool:
    weights, others = (load_checkpoint(folder / LAST_NAME).model for folder in (one, other))
    assert weights.keys() == others.keys()
    return all(torch.equal(tensor, others[name]) for name, tensor in weights.items())


@pytest.fixture(scope="module")
def splits(colours: Path) -> Splits:
    return load_splits(DataOptions(colours))


@pytest.fixture
def soft(splits: Splits, tmp_path: Path, draw: Draw) -> Path:
    """Soft labels of two training pictures, of one that is new and lies beside the file, and of one of val."""
    draw(tmp_path / "images" / "new.png", seed=5, size=(20, 20))
    first, second = splits.train.records[:2]
    names = [first.image_id, second.image_id, "new.png", splits.val.records[0].image_id]
    rows = [f"{name},0.9,0.2," for name in names]
    file = tmp_path / "soft.csv"
    file.write_text("\n".join([f"image,{','.join(splits.labels.names)}", *rows]) + "\n")
    return file


def test_files_and_run_folders_are_averaged_as_logits(
    splits: Splits, soft: Path, colours: Path, tmp_path: Path
) -> None:
    run(train, "--data", colours, "--output", tmp_path / "teacher", *SMALL, "--epochs", "1")

    def target(*soft_labels: Path, teachers: tuple[Path, ...] = (), weight: float = 1.0) -> list[float]:
        options = Distillation(teachers=teachers, soft_labels=soft_labels, soft_weight=weight)
        taught, _ = teach(splits, options, 1.0, "cpu", lambda _: None)
        return [float(value) for value in target_of(taught.train.records[0], 3)]

    teacher = (tmp_path / "teacher",)
    alone, both = target(teachers=teacher), target(soft, teachers=teacher, weight=3.0)
    odds = np.log(np.array(alone[:2]) / (1 - np.array(alone[:2])))
    of_file = np.log([0.9 / 0.1, 0.2 / 0.8])
    assert both[:2] == pytest.approx(1 / (1 + np.exp(-(odds + 3 * of_file) / 4)), abs=1e-5)
    assert both[2] == pytest.approx(alone[2], abs=1e-5)  # the file's cell is empty: the teacher alone says


def test_a_teacher_and_files_train_a_student_together(soft: Path, colours: Path, tmp_path: Path) -> None:
    run(train, "--data", colours, "--output", tmp_path / "teacher", *SMALL, "--epochs", "1")
    student = tmp_path / "student"
    given = ["--data", colours, "--output", student, *SMALL, "--epochs", "1", "--teacher-weight", "0.5"]
    result = run(train, *given, "--teacher", tmp_path / "teacher", "--soft-labels", soft)
    assert "1 rows are about val and are not used" in result.stderr
    provenance = json.loads((student / "config.json").read_text())["provenance"]
    assert provenance["teachers"].startswith("teacher ")
    assert provenance["joined_by_soft_labels"] == 1
    lines = (student / SOFT_LABELS_NAME).read_text().splitlines()
    assert len(lines) == len(load_splits(DataOptions(colours)).train.records) + 1  # the teacher sees every record


def test_shards_and_files_are_taught_the_same(splits: Splits, soft: Path, colours: Path, tmp_path: Path) -> None:
    write_shards(splits.named(), tmp_path / "shards", samples=10)
    given = ["--soft-labels", soft, "--teacher-weight", "0.5", *SMALL, "--epochs", "1"]
    pattern = tmp_path / "shards" / "train-{000000..000005}.tar"
    from_shards = run(train, "--data", pattern, "--output", tmp_path / "from-shards", *given)
    run(train, "--data", colours, "--output", tmp_path / "from-files", *given)
    assert "4 rows, matched by picture 2, by caption 0, to 2 training records" in from_shards.stderr
    assert equal_weights(tmp_path / "from-shards", tmp_path / "from-files")
    run(train, "--data", colours, "--output", tmp_path / "untaught", *SMALL, "--epochs", "1")
    assert not equal_weights(tmp_path / "from-files", tmp_path / "untaught")


@pytest.mark.parametrize("more", [(), ("--freeze-backbone", "--cache-features")], ids=["trained", "cached"])
def test_a_run_is_resumed_as_if_it_had_not_stopped(
    soft: Path, colours: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    given = ["--data", colours, *SMALL]
    taught = ["--soft-labels", soft, "--teacher-weight", "0.5", *more]
    run(train, *given, *taught, "--output", tmp_path / "whole", "--epochs", "2")
    run(train, *given, *taught, "--output", tmp_path / "stopped", "--epochs", "1")
    soft.unlink()  # the run itself keeps what the file said
    run(train, *given, "--output", tmp_path / "stopped", "--resume", "--epochs", "2")
    assert equal_weights(tmp_path / "whole", tmp_path / "stopped")


def test_cached_features_learn_from_the_rows_that_join(soft: Path, colours: Path, tmp_path: Path) -> None:
    given = ["--data", colours, *SMALL, "--epochs", "1", "--soft-labels", soft, "--teacher-weight", "0.5"]
    frozen = [*given, "--freeze-backbone", "--no-horizontal-flip"]
    run(train, *frozen, "--no-cache-features", "--output", tmp_path / "a" / "plain")
    run(train, *frozen, "--cache-features", "--output", tmp_path / "b" / "cached")
    plain, cached = (load_checkpoint(tmp_path / name / LAST_NAME).model for name in ("a/plain", "b/cached"))
    for name, tensor in plain.items():
        # Kept features are rounded to float16, once.
        torch.testing.assert_close(tensor, cached[name], rtol=1e-2, atol=1e-2, msg=name)


def test_a_sweep_teaches_every_trial(soft: Path, colours: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    space.write_text("[teacher_weight]\nchoices = [0.2, 0.8]\n")
    given = ["--preset", "none", "--data", colours, "--space", space, "--sampler", "grid"]
    given += ["--output", tmp_path / "sweep", "--format", "json", "--"]
    options = [*SMALL[2:], "--epochs", "1", "--soft-labels", soft]
    best = json.loads(run(sweep, *given, *options).stdout)["best"]
    assert f"--soft-labels {soft}" in best["command"]
    targets = []
    for trial in (0, 1):
        lines = (tmp_path / "sweep" / f"trial-{trial:04d}" / SOFT_LABELS_NAME).read_text().splitlines()
        assert len(lines) == 3
        targets.append(json.loads(lines[0])["soft"][0])
    first = load_splits(DataOptions(colours)).train.records[0]
    own = float(target_of(first, 3)[0])
    assert sorted(targets) == pytest.approx(sorted(w * 0.9 + (1 - w) * own for w in (0.2, 0.8)), abs=1e-5)
    again = json.loads(run(sweep, *given, *options).stdout)
    assert [trial["state"] for trial in again["trials"]] == ["complete", "complete"]
    refused = CliRunner().invoke(sweep, [str(each) for each in [*given, *options, "--soft-weight", "2"]])
    assert refused.exit_code == 1
    assert "1.0, not 2.0; give the same again" in refused.output


def test_a_published_model_says_names_of_files_not_where_they_lie(soft: Path, colours: Path, tmp_path: Path) -> None:
    given = ["--data", colours, "--output", tmp_path / "run", *SMALL, "--epochs", "1", "--soft-labels", soft]
    run(train, *given, "--teacher-weight", "0.5")
    trained = load_trained(tmp_path / "run")
    half = save_half(trained, tmp_path / "half")
    assert str(soft) in str(trained.config.provenance["soft_labels_files"])  # resuming looks there
    for provenance in (trained.config.published, half.config.provenance):
        assert [*json.loads(str(provenance["soft_labels_files"]))] == [soft.name]
    assert str(soft.parent) not in (tmp_path / "half" / "config.json").read_text()
