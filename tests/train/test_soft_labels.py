"""Soft labels from files: read, matched, mixed into the targets, and kept in the run."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlic_train.batches.dataset import known_of, target_of
from mlic_train.cli.train import train
from mlic_train.config import DataOptions, Distillation
from mlic_train.data.soft_labels import read_soft_file
from mlic_train.data.splits import Splits, load_splits
from mlic_train.errors import CheckpointError, ConfigError, DataError
from mlic_train.runs.folder import SOFT_LABEL_FILES
from mlic_train.training.distillation import check_soft_files, read_soft_labels, teach, write_soft_labels


@pytest.fixture(scope="module")
def splits(colours: Path) -> Splits:
    return load_splits(DataOptions(colours))


def said(
    splits: Splits, file: Path, weight: float = 0.5, *, soft_temperature: float = 1.0
) -> tuple[Splits, dict[str, object], list[str]]:
    lines: list[str] = []
    taught, notes = teach(
        splits, Distillation(soft_labels=(file,), soft_temperature=soft_temperature), weight, "cpu", lines.append
    )
    return taught, dict(notes), lines


def table(file: Path, splits: Splits, rows: list[str]) -> Path:
    file.write_text("\n".join([f"image,caption,{splits.labels.names[0]},nonsense", *rows]) + "\n")
    return file


def test_known_labels_are_mixed_and_others_are_left_alone(splits: Splits, tmp_path: Path) -> None:
    first, second = splits.train.records[:2]
    rows = [f"{first.image_id},,0.25,", f"some/{second.image_id},,,", "no.png,,1,"]
    file = table(tmp_path / "soft.csv", splits, rows)
    taught, _, lines = said(splits, file)
    before, after = target_of(first, len(splits.labels)), target_of(taught.train.records[0], len(splits.labels))
    assert after[0] == pytest.approx(0.5 * before[0] + 0.5 * 0.25)
    assert list(after[1:]) == list(before[1:])
    assert taught.train.records[1] == second  # its only cell is empty
    text = "\n".join(lines)
    assert "3 rows, matched by picture 2, by caption 0" in text
    assert "1 rows match no training record and no picture: 'line 4 (no.png)'" in text
    assert "'nonsense' is no label of the data" in text
    assert "training records have no row of soft labels" in text


def test_a_caption_finds_its_record(splits: Splits, tmp_path: Path) -> None:
    place, record = next((i, each) for i, each in enumerate(splits.train.records) if each.captions)
    taught, _, lines = said(splits, table(tmp_path / "soft.csv", splits, [f',"{record.captions[0]}",0.5,']), 1.0)
    assert target_of(taught.train.records[place], len(splits.labels))[0] == pytest.approx(0.5)
    assert any("by caption 1" in line for line in lines)


def test_held_out_pictures_are_not_used(splits: Splits, tmp_path: Path) -> None:
    rows = [f"{record.image_id},,0.9," for record in splits.val.records[:1]]
    taught, _, lines = said(splits, table(tmp_path / "soft.csv", splits, rows))
    assert taught.train.records == splits.train.records
    assert any("1 rows are about val and are not used" in line for line in lines)


def test_new_pictures_join_with_unknown_labels(splits: Splits, tmp_path: Path, draw: Callable[..., Path]) -> None:
    draw(tmp_path / "images" / "new.png", seed=77, size=(20, 20))
    taught, notes, lines = said(splits, table(tmp_path / "soft.csv", splits, ["new.png,a new thing,0.7,"]), 0.0)
    new = taught.train.records[-1]
    assert (new.labels, new.captions, notes["joined_by_soft_labels"]) == (None, ("a new thing",), 1)
    known = known_of(new, len(splits.labels))
    assert known is not None
    assert list(known) == [True] + [False] * (len(splits.labels) - 1)
    assert any("1 pictures without labels of their own join" in line for line in lines)
    write_soft_labels(tmp_path, taught)
    assert read_soft_labels(tmp_path, splits, notes["soft_labels_fingerprint"]).train.records == taught.train.records


def test_output_of_the_runtime_is_read_and_temperature_softens(splits: Splits, tmp_path: Path) -> None:
    record, name = splits.train.records[0], splits.labels.names[0]
    line: dict[str, object] = {
        "image": f"in/{record.image_id}",
        "caption": None,
        "labels": [],
        "probabilities": {name: 0.9},
    }
    file = tmp_path / "results.jsonl"
    file.write_text(json.dumps(line) + "\n")
    taught, _, _ = said(splits, file, 1.0, soft_temperature=2.0)
    assert target_of(taught.train.records[0], len(splits.labels))[0] == pytest.approx(0.75)  # odds 9 become 3


@pytest.mark.parametrize("cell", ["1.5", "-0.1", "yes"])
def test_a_value_out_of_range_names_line_and_column(splits: Splits, tmp_path: Path, cell: str) -> None:
    file = table(tmp_path / "soft.csv", splits, ["a.png,,0.5,", f"b.png,,{cell},"])
    with pytest.raises(DataError, match=rf"soft.csv:3: column '{splits.labels.names[0]}': found '{cell}'"):
        read_soft_file(file, splits.labels)


def test_files_without_a_label_of_the_data_are_refused(splits: Splits, tmp_path: Path) -> None:
    file = tmp_path / "soft.csv"
    file.write_text("image,other\na.png,0.5\n")
    with pytest.raises(DataError, match="found none of the"):
        read_soft_file(file, splits.labels)


def test_nothing_to_teach_is_refused(splits: Splits, tmp_path: Path) -> None:
    known = dataclasses.replace(splits.train, records=tuple(r for r in splits.train.records if not r.unknown))
    file = table(tmp_path / "soft.csv", splits, [f"{splits.train.records[0].image_id},,0.5,"])
    with pytest.raises(ConfigError, match="nothing to teach"):
        said(dataclasses.replace(splits, train=known), file, 0.0)


def test_a_changed_file_is_not_resumed_with(splits: Splits, tmp_path: Path) -> None:
    file = table(tmp_path / "soft.csv", splits, [f"{splits.train.records[0].image_id},,0.5,"])
    _, notes, _ = said(splits, file)
    check_soft_files(notes)
    file.write_text(file.read_text().replace("0.5", "0.6"))
    with pytest.raises(CheckpointError, match="has changed since the run started"):
        check_soft_files(notes)
    file.unlink()
    assert SOFT_LABEL_FILES in notes
    check_soft_files(notes)  # the run itself keeps what the file said


def row_of(splits: Splits, file: Path) -> tuple[int, str | None, float]:
    (row,) = read_soft_file(file, splits.labels).rows
    return row.line, row.image, row.probabilities[0]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_table_that_training_reads_is_read(
    splits: Splits, tmp_path: Path, encoding: str, separator: str, end: str
) -> None:
    lines = [separator.join(("image", splits.labels.names[0])), separator.join(("größe.png", "0.25")), ""]
    (tmp_path / "soft.csv").write_bytes(end.join(lines).encode(encoding))
    assert row_of(splits, tmp_path / "soft.csv") == (2, "größe.png", 0.25)


@pytest.mark.parametrize("many", [False, True])
def test_objects_of_json_have_probabilities(splits: Splits, tmp_path: Path, many: bool) -> None:
    entry = {"image": "a.png", "probabilities": {splits.labels.names[0]: 0.25}}
    file = tmp_path / ("soft.json" if many else "soft.jsonl")
    file.write_text(json.dumps([entry] if many else entry))
    assert row_of(splits, file) == (1, "a.png", 0.25)
    flat = {"image": "a.png", splits.labels.names[0]: 0.25}
    file.write_text(json.dumps([entry, flat]) if many else f"{json.dumps(entry)}\n\n{json.dumps(flat)}\n")
    with pytest.raises(DataError, match=rf"{file.name}:{2 if many else 3}: expected an object with probabilities"):
        read_soft_file(file, splits.labels)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('image,caption,{0}\n"a\n\nb.png",,0.5\n\nc.png,,2\n', ":6: column '{0}': found '2'"),
        ("image,{0}\na.png\n", ":2: found 1 columns; expected 2"),
        ('image,{0}\na.png,0.5\n"b"x,1\n', ":3: found '.*', which is not CSV"),
        ("image,{0},{0}\na.png,1,1\n", ": found a column twice in the header"),
        ("image,{0}\n\udce9.png,1\n", ":2: .*UTF-8"),
        ("", ": found no header"),
    ],
)
def test_a_broken_table_is_refused_at_its_line(splits: Splits, tmp_path: Path, text: str, message: str) -> None:
    file, name = tmp_path / "soft.csv", splits.labels.names[0]
    file.write_bytes(text.format(name).encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=f"^{file}{message.format(name)}"):
        read_soft_file(file, splits.labels)


def test_row_numbers_that_pandas_wrote_are_left_out_and_said(splits: Splits, tmp_path: Path) -> None:
    file = tmp_path / "soft.csv"
    file.write_text(f",image,{splits.labels.names[0]}\n0,a.png,0.25\n")
    assert row_of(splits, file) == (2, "a.png", 0.25)
    assert f"{file}: the row numbers in the column ''" in read_soft_file(file, splits.labels).notes


def test_the_check_says_what_matches_beside_all_else(colours: Path, tmp_path: Path, draw: Callable[..., Path]) -> None:
    data = tmp_path / "data"
    shutil.copytree(colours, data)
    splits = load_splits(DataOptions(data))
    first, held_out = splits.train.records[0], splits.val.records[0]
    (data / "images" / "train3.png").unlink()
    draw(tmp_path / "images" / "new.png", seed=77, size=(20, 20))
    shutil.copy(data / "images" / str(held_out.image_id), tmp_path / "images" / "again.png")
    good = table(tmp_path / "good.csv", splits, [f"{first.image_id},,0.9,", "new.png,,0.7,", "again.png,,0.7,"])
    broken = table(tmp_path / "broken.csv", splits, ["a.png,,1.5,"])
    command = ["--data", data, "--check", "--soft-labels", good, "--soft-labels", broken]

    result = CliRunner().invoke(train, [str(argument) for argument in command])
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert f"{good}: 3 rows, matched by picture 1, by caption 0, to 1 training records" in lines
    assert "2 pictures without labels of their own join the training with soft labels" in lines
    bad_file, missing_picture, overlap = (line for line in lines if line.startswith("error"))
    assert bad_file.startswith(f"error: 1 x bad-file: {broken}: line 2: column 'red': found '1.5'; expected ")
    assert missing_picture.startswith("error: 1 x missing-picture: train.csv:record 4: no picture at ")
    assert overlap.startswith(f"error: 1 x split-overlap: {good}:record 4: 'again.png' is also in the split 'val'")
    assert result.stderr.splitlines()[-1].startswith("3 errors, ")

    result = CliRunner().invoke(train, [*(str(argument) for argument in command), "--format", "json"])
    assert [one["kind"] for one in json.loads(result.stdout)["problems"] if one["severity"] == "error"] == [
        "bad-file",
        "missing-picture",
        "split-overlap",
    ]
    assert "matched by picture 1" in result.stderr
