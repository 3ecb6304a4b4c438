"""Unknown labels from the file to the page: JSON lines, rows of one picture, shards, checks, reports."""

import dataclasses
import json
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from mlic_runtime.annotations.formats.shard_index import index_of
from mlic_train.api import Run, export
from mlic_train.cli.report import report
from mlic_train.cli.shards import shards
from mlic_train.cli.train import train
from mlic_train.config import DataOptions
from mlic_train.data import LabelSet, fingerprint, read_labels, read_split
from mlic_train.data.records import contradict
from mlic_train.data.splits import Splits, check_data, load_splits
from mlic_train.errors import DataError
from mlic_train.exporting.precisions import largest_drop
from mlic_train.measure.predict import Outputs
from mlic_train.report.comparison import paired_differences
from mlic_train.report.curves import shown_labels
from mlic_train.report.data import write_data_report
from mlic_train.report.label_metrics import label_metrics
from mlic_train.runs.folder import TrainedModel
from tests.unknown_labels import forget

LABELS = LabelSet(("person", "dog", "traffic light"), ("1", "18", "10"))


def write(file: Path, *lines: object) -> Path:
    file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return file


def run(command: object, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])  # type: ignore[arg-type] # a command


@pytest.fixture(scope="module")
def expected(colours: Path) -> Splits:
    return forget(load_splits(DataOptions(colours)))


@pytest.fixture(scope="module")
def patchy(colours: Path, expected: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The colours with some labels unknown, as JSON lines."""
    root = tmp_path_factory.mktemp("patchy")
    (root / "images").symlink_to(colours / "images")
    (root / "labels.csv").write_bytes((colours / "labels.csv").read_bytes())
    for name, split in expected.named().items():
        names = split.labels.names
        lines: list[dict[str, object]] = []
        for each in split.records:
            line: dict[str, object] = {"image": each.image_id, "captions": list(each.captions)}
            line["labels"] = [names[index] for index in each.labels or ()]
            if each.unknown:
                line["unknown"] = [names[index] for index in each.unknown]
            lines.append(line)
        write(root / f"{name}.jsonl", *lines)
    return root


def test_json_lines_name_unknown_labels(tmp_path: Path) -> None:
    file = write(
        tmp_path / "train.jsonl",
        {"caption": "a", "labels": ["dog"], "unknown": ["10", 1]},
        {"caption": "b", "labels": [], "unknown": None},
        {"caption": "c", "labels": [18.0], "unknown": []},
        {"caption": "d", "labels": None},
    )
    rows = [(each.labels, each.unknown) for each in read_split([file], LABELS).records]
    assert rows == [((1,), (0, 2)), ((), ()), ((1,), ()), (None, ())]


def test_labels_that_are_only_ever_unknown_are_labels(tmp_path: Path) -> None:
    file = write(tmp_path / "train.jsonl", {"caption": "a", "labels": ["dog"], "unknown": ["cat"]})
    assert read_labels([file]).names == ("cat", "dog")


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        ({"unknown": ["dog"]}, "bad-row", "found unknown labels without labels"),
        ({"labels": ["dog"], "unknown": [18]}, "bad-row", 'found ["dog"] as labels and as unknown'),
        ({"labels": [], "unknown": "dog"}, "bad-row", "found unknown 'dog'; expected a list"),
        ({"labels": [], "unknown": ["doog"]}, "unknown-label", "did you mean 'dog'"),
        ({"labels": [], "unknown": ["\ud83d"]}, "bad-row", "not UTF-8"),
    ],
)
def test_a_bad_line_is_refused_or_skipped(tmp_path: Path, line: dict[str, object], kind: str, message: str) -> None:
    file = write(tmp_path / "train.jsonl", {"caption": "x", **line}, {"caption": "A man."})
    with pytest.raises(DataError, match="mend the row") as error:
        read_split([file], LABELS)
    assert message in str(error.value)
    split = read_split([file], LABELS, skip_bad_rows=True)
    assert [(problem.number, problem.kind) for problem in split.skipped] == [(1, kind)]
    assert [each.number for each in split.records] == [2]


def row(labels: list[str] | None, unknown: list[str] | None = None, caption: str = "x") -> dict[str, object]:
    return {"image": "a.png", "caption": caption, "labels": labels, **({"unknown": unknown} if unknown else {})}


@pytest.mark.parametrize(
    ("rows", "labels", "unknown"),
    [
        # What one row knows and another does not is known.
        ([row(["dog"], ["person"]), row(["dog"], ["traffic light"])], (1,), ()),
        ([row(["dog"], ["person"]), row(["person", "dog"])], (0, 1), ()),
        ([row([], ["person", "dog"]), row(["dog"], ["person"])], (1,), (0,)),
        ([row(["dog"], ["person"]), row(["dog"], ["person"])], (1,), (0,)),
        # A row that is not labelled says nothing, whichever comes first.
        ([row(None), row(["dog"], ["person"])], (1,), (0,)),
        ([row(["dog"], ["person"]), row(None)], (1,), (0,)),
    ],
)
def test_rows_of_one_picture_know_together_what_each_knows(
    tmp_path: Path, rows: list[dict[str, object]], labels: tuple[int, ...], unknown: tuple[int, ...]
) -> None:
    split = read_split([write(tmp_path / "train.jsonl", *rows)], LABELS, pictures=False)
    assert [(each.labels, each.unknown) for each in split.records] == [(labels, unknown)]


@pytest.mark.parametrize(
    "rows",
    [
        [row(["dog"], ["person"]), row([], ["person"])],
        [row([], ["person"]), row(["dog"], ["person"])],
        [row(["dog"], ["person"]), row(["person"])],
    ],
)
def test_a_row_that_has_what_another_lacks_contradicts_it(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    file = write(tmp_path / "train.jsonl", *rows)
    with pytest.raises(DataError, match="expected the same labels in every row of a picture"):
        read_split([file], LABELS, pictures=False)


def test_records_contradict_each_other_where_both_know(tmp_path: Path) -> None:
    lines = [
        {"caption": "a", "labels": ["dog"], "unknown": ["person"]},
        {"caption": "b", "labels": ["dog", "person"]},
        {"caption": "c", "labels": ["person"]},
    ]
    first, second, third = read_split([write(tmp_path / "train.jsonl", *lines)], LABELS).records
    assert not contradict(first, second)
    assert contradict(first, third)
    assert contradict(second, third)


def test_unknown_labels_come_back_from_shards_and_their_indices(patchy: Path, expected: Splits, tmp_path: Path) -> None:
    before = load_splits(DataOptions(patchy))
    for name, split in before.named().items():
        told = [(each.labels, each.unknown) for each in split.records]
        assert told == [(each.labels, each.unknown) for each in expected.named()[name].records]
    folder = tmp_path / "shards"
    result = run(shards, "--data", patchy, "--output", folder)
    assert result.exit_code == 0, result.output
    after = load_splits(DataOptions(folder))
    assert fingerprint(after.named()) == fingerprint(before.named())
    assert [each.unknown for each in after.train.records] == [each.unknown for each in before.train.records]
    assert run(shards, "--verify", folder).exit_code == 0
    files = fsspec.filesystem("memory")
    for file in folder.iterdir():
        files.pipe(f"/patchy/{file.name}", file.read_bytes())
    try:
        far = load_splits(DataOptions(Path("memory://patchy")))
        assert fingerprint(far.named()) == fingerprint(before.named())
    finally:
        files.rm("/patchy", recursive=True)


def test_shards_without_unknown_labels_do_not_mention_them(colours: Path, tmp_path: Path) -> None:
    assert run(shards, "--data", colours, "--output", tmp_path / "shards").exit_code == 0
    for shard in (tmp_path / "shards").glob("*.tar"):
        assert b"unknown" not in index_of(shard).read_bytes()
        with tarfile.open(shard) as archive:
            texts = [archive.extractfile(name) for name in archive.getnames() if name.endswith(".json")]
            assert not any(b"unknown" in text.read() for text in texts if text is not None)


@pytest.mark.parametrize(("where", "severity"), [("train", "error"), ("val", "warning")])
def test_check_names_a_label_of_which_nobody_knows_anything(tmp_path: Path, where: str, severity: str) -> None:
    whole = [{"caption": text, "labels": ["dog", "cat"]} for text in ("a", "b")]
    partly = [{"caption": text, "labels": ["dog"], "unknown": ["cat"]} for text in ("c", "d")]
    for name in ("train", "val"):
        write(tmp_path / f"{name}.jsonl", *(partly if name == where else whole))
    (tmp_path / "labels.csv").write_text("LabelID,Name\n1,dog\n2,cat\n")
    problems = check_data(DataOptions(tmp_path)).problems
    assert [(problem.kind, problem.severity, problem.count) for problem in problems] == [("unused-label", severity, 1)]
    assert f"no record of {where} has the label 'cat', and in 2 of 2 it is unknown" in problems[0].examples[0]
    if severity == "error":
        result = run(train, "--data", tmp_path, "--no-pictures", "--output", tmp_path / "run")
        assert result.exit_code == 1
        assert "no training row says whether it has 'cat'" in result.output
        assert not (tmp_path / "run").exists()


def test_a_run_is_evaluated_on_what_is_known(patchy: Path, expected: Splits, trained: TrainedModel) -> None:
    metrics = Run.open(trained.folder).evaluate(patchy)
    for name in ("val", "test"):
        records = expected.named()[name].records
        assert metrics[name]["unknown"] == sum(len(each.unknown) for each in records)
        assert metrics[name]["rows"] == sum(bool(each.labels) or 0 < len(each.unknown) < 3 for each in records)


def test_a_package_says_what_was_left_out(
    patchy: Path, expected: Splits, trained: TrainedModel, tmp_path: Path
) -> None:
    package = export(trained.folder, tmp_path / "package", data=patchy)
    assert package.manifest.metrics["fp32"] == Run.open(trained.folder).evaluate(patchy)
    unknown = sum(len(each.unknown) for each in expected.val.records)
    assert package.manifest.metrics["fp32"]["val"]["unknown"] == unknown
    card = (tmp_path / "package" / "README.md").read_text()
    assert "| unknown labels |" in card
    assert f"| {unknown} |" in card


def test_the_loss_of_f1_of_a_graph_is_over_what_is_known(trained: TrainedModel) -> None:
    rng = np.random.default_rng(0)
    targets, known, yes = rng.random((40, 3)) < 0.5, rng.random((40, 3)) < 0.7, np.full(40, True)
    model = rng.normal(0, 2, (40, 3)).astype(np.float32)
    graph = np.where(known, model, -model)  # it differs where nobody knows

    def drop(mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] | None) -> float:
        before, after = ({"val": Outputs(logits, targets, yes, yes, mask)} for logits in (model, graph))
        return largest_drop(trained, before, after)

    assert drop(known) == 0
    assert drop(None) != 0


def test_differences_of_runs_are_over_what_is_known() -> None:
    rng = np.random.default_rng(0)
    targets, known, yes = rng.random((40, 3)) < 0.5, rng.random((40, 3)) < 0.7, np.full(40, True)
    first = rng.normal(0, 2, (40, 3)).astype(np.float32)
    outputs = [Outputs(logits, targets, yes, yes, known) for logits in (first, np.where(known, first, -first))]
    half = np.full(3, 0.5)
    assert set(paired_differences(outputs[0], half, outputs[1], half).values()) == {(0.0, 0.0)}


def test_labels_are_measured_in_the_rows_that_know_them() -> None:
    targets = np.array([[1, 0], [1, 1], [0, 0], [0, 1]], dtype=bool)
    known = np.array([[1, 1], [1, 1], [0, 1], [1, 0]], dtype=bool)
    said = np.array([[0.9, 0.1], [0.2, 0.8], [0.95, 0.9], [0.3, 0.7]])
    first, second = label_metrics(("a", "b"), said, targets, np.full(2, 0.5), known)
    assert (first.support, first.predicted, first.unknown) == (2, 1, 1)
    assert (first.precision.value, first.recall.value) == (1.0, 0.5)
    assert first.ap is not None
    assert first.ap.value == pytest.approx((1 + 2 / 3) / 2)
    assert (second.support, second.predicted, second.unknown) == (1, 2, 1)
    assert second.precision.value == 0.5
    assert shown_labels(targets & known, known) == [0, 1]
    assert shown_labels(np.array([[True, True], [False, True]]), np.array([[True, True], [False, True]])) == []


def test_reports_count_unknown_labels_where_there_are_any(
    patchy: Path, colours: Path, trained: TrainedModel, tmp_path: Path
) -> None:
    for data, mentioned in ((patchy, True), (colours, False)):
        page, other = tmp_path / f"{data.name}-data.html", tmp_path / f"{data.name}-run.html"
        write_data_report(DataOptions(data), page)
        assert ("<th>unknown labels, of all rows together</th>" in page.read_text()) == mentioned
        assert ("<th>unknown</th>" in page.read_text()) == mentioned
        result = run(report, "run", trained.folder, "--data", data, "--split", "val", "--output", other)
        assert result.exit_code == 0, result.output
        assert ("<th>unknown labels</th>" in other.read_text()) == mentioned
        assert ("<th>unknown</th>" in other.read_text()) == mentioned
        assert ("Unknown labels count nowhere" in other.read_text()) == mentioned
        assert ("(unknown: " in other.read_text()) == mentioned


def test_two_runs_are_compared_on_what_is_known(patchy: Path, trained: TrainedModel, tmp_path: Path) -> None:
    page = tmp_path / "compare.html"
    folders = (trained.folder, trained.folder)
    result = run(report, "compare", *folders, "--data", patchy, "--split", "val", "--output", page)
    assert result.exit_code == 0, result.output
    assert "<th>unknown</th>" in page.read_text()
    assert "Unknown labels count nowhere" in page.read_text()


def test_words_of_a_label_come_from_rows_that_know_it(expected: Splits) -> None:
    from mlic_train.report.words import label_words

    first = expected.train.records[0]
    rows = [("rose", (0,), ()), ("fern", (), ()), ("rose fern", (), (0,)), ("rose rose", (), (0,))]
    records = tuple(
        dataclasses.replace(first, captions=(text,), labels=labels, unknown=unknown) for text, labels, unknown in rows
    )
    words = label_words(dataclasses.replace(expected.train, records=records))
    assert [word for word, _ in words[0].words] == ["rose"]
    assert words[0].words[0][1] == pytest.approx(1.0)  # as if the last two were not there


def test_soft_labels_may_be_all_that_knows_a_label(tmp_path: Path) -> None:
    rows = [{"caption": text, "labels": ["dog"], "unknown": ["cat"]} for text in ("a", "b")]
    for name in ("train", "val"):
        write(tmp_path / f"{name}.jsonl", *rows)
    (tmp_path / "labels.csv").write_text("LabelID,Name\n1,dog\n2,cat\n")
    soft = tmp_path / "teacher" / "soft.csv"
    soft.parent.mkdir()
    soft.write_text("caption,cat\na,0.9\nb,0.1\n")
    command = (train, "--data", tmp_path, "--no-pictures", "--check")
    assert run(*command).exit_code == 1
    result = run(*command, "--soft-labels", soft)
    assert result.exit_code == 0, result.output
    assert "no record of train has the label 'cat'" in result.output
    assert "0 errors, 2 warnings" in result.output
