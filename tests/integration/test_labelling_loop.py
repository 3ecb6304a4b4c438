"""Predict, choose what the model is least certain of, correct it in Label Studio, train again with the corrections."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from mlic_runtime.cli.infer import infer
from mlic_train.cli.train import train
from mlic_train.config import DataOptions
from mlic_train.data.splits import Splits, load_splits

TINY = Path(__file__).parents[1] / "data" / "tiny"  # its labels: red, green, blue
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def run(command: Any, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def draw(path: Path, number: int, colour: "tuple[int, int, int]") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((6, 8, 3), colour, dtype=np.uint8)
    pixels[0, 0] = number  # so that no two pictures are equal
    Image.fromarray(pixels).save(path)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with labelled data, `my-data`, and a folder of new pictures beside it."""
    for split, start in (("train", 0), ("val", 50)):
        rows = ["ImageID,Labels,Caption"]
        for number, (label, colour) in enumerate(list(COLOURS.items()) * 2, start=start):
            draw(tmp_path / "my-data" / "images" / f"{number}.png", number, colour)
            rows.append(f"{number}.png,{label},a {label} wall")
        (tmp_path / "my-data" / f"{split}.csv").write_text("\n".join(rows) + "\n")
    for number in range(100, 106):
        draw(tmp_path / "new pictures" / f"{'more é/' if number % 2 else ''}{number}.png", number, (number, 90, 160))
    (tmp_path / "new pictures" / "100.txt").write_text("a wall of two colours")
    return tmp_path


def corrected(tasks: "list[dict[str, Any]]") -> "list[dict[str, Any]]":
    """What Label Studio exports as JSON: every second task is corrected to no label, the others to blue and green."""
    exported = []
    for number, task in enumerate(tasks, start=1):
        choices = [{"value": {"choices": ["blue", "green"]}, "id": "x1", "from_name": "labels", "to_name": "image",
                    "type": "choices", "origin": "manual"}]  # fmt: skip
        annotation = {
            "id": number, "completed_by": 1, "result": choices if number % 2 else [], "was_cancelled": False,
            "ground_truth": False, "created_at": "2026-01-01T00:00:00Z", "lead_time": 3.0, "task": number,
        }  # fmt: skip
        exported.append(
            {"id": number, "annotations": [annotation], "drafts": [], "predictions": [number], "data": task["data"],
             "meta": {}, "project": 1}
        )  # fmt: skip
    return exported


def short_export(tasks: "list[dict[str, Any]]") -> "list[dict[str, Any]]":
    """The same as JSON_MIN: the data of a task, its id, the answers, then facts about the annotation."""
    return [
        {
            **task["data"],
            "id": number,
            **({"labels": {"choices": ["blue", "green"]}} if number % 2 else {}),
            "annotator": 1,
            "annotation_id": number,
            "created_at": "2026-01-01T00:00:00Z",
            "updated_at": "2026-01-01T00:00:00Z",
            "lead_time": 3.0,
        }
        for number, task in enumerate(tasks, start=1)
    ]


@pytest.mark.parametrize("export", [corrected, short_export])
def test_corrections_of_the_least_certain_rows_join_the_training_data(place: Path, export: Any) -> None:
    new, tasks = place / "new pictures", place / "tasks.json"
    found = run(
        infer, "--model", TINY, "--input", new, "--uncertain", 4, "--format", "label-studio", "--output", tasks
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    chosen = json.loads(tasks.read_text("utf-8"))
    (place / "export.json").write_text(json.dumps(export(chosen)))
    before, after = splits(place), splits(place, place / "export.json")
    joined = after.train.records[len(before.train.records) :]
    assert len(joined) == 4
    expected = run(infer, "--model", TINY, "--input", new, "--uncertain", 4).stdout.splitlines()
    for number, (record, line) in enumerate(zip(joined, expected, strict=True), start=1):
        prediction = json.loads(line)
        assert isinstance(record.image, Path)
        assert record.image.read_bytes() == (new / prediction["image"]).read_bytes()
        assert record.captions == tuple(filter(None, [prediction["caption"]]))
        assert record.labels is not None
        names = {after.labels.names[index] for index in record.labels}
        assert names == ({"blue", "green"} if number % 2 else set())
    assert len(after.val.records) == len(before.val.records)


def splits(place: Path, *also: Path) -> Splits:
    return load_splits(DataOptions(place / "my-data", also=also))


def test_pictures_that_are_in_the_data_take_the_corrected_labels(place: Path) -> None:
    images, tasks = place / "my-data" / "images", place / "tasks.json"
    shutil.copytree(images, place / "copies")
    run(infer, "--model", TINY, "--input", place / "copies", "--uncertain", 12, "--format", "label-studio",
        "--output", tasks)  # fmt: skip
    (place / "export.json").write_text(json.dumps(corrected(json.loads(tasks.read_text("utf-8")))))
    before, after = splits(place), splits(place, place / "export.json")
    assert len(after.train.records) == len(before.train.records)
    assert {record.labels for record in after.train.records} <= {(), after.labels.parse("blue;green")}


def test_a_model_is_trained_with_the_corrections(place: Path) -> None:
    run(infer, "--model", TINY, "--input", place / "new pictures", "--uncertain", 3, "--format", "label-studio",
        "--output", place / "tasks.json")  # fmt: skip
    (place / "export.json").write_text(json.dumps(corrected(json.loads((place / "tasks.json").read_text("utf-8")))))
    done = run(
        train, "--data", place / "my-data", "--also", place / "export.json", "--model", "cnn", "--epochs", 1,
        "--backbone", "conv3", "--image-size", 16, "--device", "cpu", "--output", place / "run",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "3 rows joined train" in done.stderr
