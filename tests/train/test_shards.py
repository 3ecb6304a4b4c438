import csv
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from mlic_runtime.annotations.formats.format import Row
from mlic_runtime.annotations.formats.shards import Shards
from mlic_runtime.annotations.source.addresses import expand
from mlic_runtime.annotations.source.members import Member, from_json, image_source, to_json
from mlic_runtime.errors import ImageError, OutputError
from mlic_runtime.package.manifest import ImageSpec
from mlic_runtime.picture.decode import read_pixels
from mlic_train.batches.dataset import plan_epoch
from mlic_train.cli.report import report
from mlic_train.cli.shards import shards
from mlic_train.cli.train import train
from mlic_train.config import DataOptions, ModelConfig, TrainConfig
from mlic_train.data import fingerprint
from mlic_train.data.shard_writer import write_shards
from mlic_train.data.splits import Splits, load_splits, read_splits
from mlic_train.errors import DataError
from mlic_train.runs.folder import LAST_NAME, load_checkpoint
from mlic_train.training.run import train_run

Draw = Callable[..., Path]
ROWS = [("a.jpg", ["dog"], ["A dog."]), ("sub/b.PNG", ["cat", "dog"], ["One.", "Two."]), ("c.gif", [], [])]


def run(command: object, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])  # type: ignore[arg-type] # a command


def tar(path: Path, members: dict[str, bytes]) -> Path:
    """A shard as others write them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture(scope="module")
def written(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The colours as shards: 6, 2 and 1."""
    folder = tmp_path_factory.mktemp("written") / "shards"
    write_shards(load_splits(DataOptions(colours)).named(), folder, samples=10)
    return folder


@pytest.fixture
def pictures(tmp_path: Path, draw: Draw) -> Path:
    for name, _, _ in ROWS:
        draw(tmp_path / "data" / "images" / name)
    return tmp_path / "data"


def csv_files(folder: Path) -> None:
    with (folder / "train.csv").open("w", newline="") as file:
        rows = [(name, ";".join(labels) + ";", text) for name, labels, texts in ROWS for text in texts or [""]]
        csv.writer(file).writerows([("ImageID", "Labels", "Caption"), *rows])
    (folder / "captions.csv").write_text("Labels,Caption\ncat;,A cat alone.\n")
    (folder / "labels.csv").write_text("LabelID,Name\n7,dog\n3,cat\n")


def competition_files(folder: Path) -> None:
    for (name, _, _), number in zip(ROWS, "012", strict=True):
        shutil.move(folder / "images" / name, folder / "images" / f"{number}.jpg")
    text = 'ImageID,Labels,Caption\n0.jpg,1 19,"A "big" dog,\nrunning"\n1.jpg,1,A cat\n2.jpg,3,"x ""y"""\n'
    (folder / "train.csv").write_text(text)


def jsonl_files(folder: Path) -> None:
    lines = [json.dumps({"image": name, "labels": labels, "captions": texts}) for name, labels, texts in ROWS]
    lines += [json.dumps({"caption": "Ein Hund, größer.", "labels": ["dog"]}), json.dumps({"image": "d.xyz"})]
    shutil.copy(folder / "images" / "a.jpg", folder / "images" / "d.xyz")
    (folder / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")


def coco_files(folder: Path) -> None:
    categories = [{"id": 18, "name": "dog"}, {"id": 10, "name": "traffic light"}]
    images = [{"id": number, "file_name": name} for number, (name, _, _) in enumerate(ROWS)]
    notes = [{"image_id": 0, "category_id": 18}, {"image_id": 0, "category_id": 10}]
    texts = [{"image_id": 0, "caption": "A dog."}, {"image_id": 0, "caption": "A light."}]
    content = {"images": images, "categories": categories, "annotations": notes}
    (folder / "instances_train.json").write_text(json.dumps(content))
    (folder / "captions_train.json").write_text(json.dumps({"annotations": texts}))


@pytest.mark.parametrize("write", [csv_files, competition_files, jsonl_files, coco_files])
def test_every_format_comes_back_from_shards_as_it_was(pictures: Path, write: Callable[[Path], None]) -> None:
    write(pictures)
    kind = "competition" if write is competition_files else "auto"
    before = read_splits(DataOptions(pictures, data_format=kind))
    output = pictures.parent / "shards"
    result = run(shards, "--data", pictures, "--data-format", kind, "--output", output, "--samples-per-shard", 2)
    assert result.exit_code == 0, result.output
    after = read_splits(DataOptions(output))
    assert after["train"].labels == before["train"].labels
    assert len(before["train"].records) in (3, 4, 5)
    for ours, theirs in zip(after["train"].records, before["train"].records, strict=True):
        assert (ours.image_id, ours.captions, ours.labels) == (theirs.image_id, theirs.captions, theirs.labels)
        assert (ours.image is None) == (theirs.image is None)
        if ours.image is not None and theirs.image is not None:
            assert ours.image.read_bytes() == theirs.image.read_bytes()
    assert (
        fingerprint(after)
        == fingerprint(before)
        == json.loads((output / "shards.json").read_text())["data_fingerprint"]
    )


def test_shards_of_shards_are_the_same_bytes(written: Path, tmp_path: Path) -> None:
    result = run(shards, "--data", written, "--output", tmp_path / "again", "--samples-per-shard", 10)
    assert result.stdout.splitlines()[0].startswith("train: 54 records, 6 shards, ")
    assert {file.name: file.read_bytes() for file in written.iterdir()} == {
        file.name: file.read_bytes() for file in (tmp_path / "again").iterdir()
    }


def test_shards_are_what_other_programs_read(written: Path) -> None:
    with tarfile.open(written / "train-000000.tar") as archive:
        names = archive.getnames()
        assert names[:4] == ["000000000.png", "000000000.json", "000000000.txt", "000000001.png"]
        assert {(member.mtime, member.uid, member.gid, member.isreg()) for member in archive} == {(0, 0, 0, True)}
        text = archive.extractfile("000000000.txt")
        assert text is not None
        assert text.read().startswith(b"a wall in ")


def test_a_shard_ends_at_so_many_samples_or_bytes(colours: Path, tmp_path: Path) -> None:
    splits = read_splits(DataOptions(colours))
    facts = write_shards(splits, tmp_path / "few", samples=20)
    assert [each["records"] for each in facts["train"].values()] == [20, 20, 14]
    facts = write_shards(splits, tmp_path / "small", max_bytes=20_000)
    assert max(int(each["bytes"]) for each in facts["train"].values()) <= 20_000
    facts = write_shards(splits, tmp_path / "tiny", max_bytes=1)
    assert {each["records"] for each in facts["train"].values()} == {1}
    for folder in ("few", "small", "tiny"):
        assert fingerprint(read_splits(DataOptions(tmp_path / folder))) == fingerprint(splits)


def test_shards_never_join_other_files(written: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "precious").touch()
    with pytest.raises(OutputError, match="is there already; shards are not mixed with other files"):
        write_shards(read_splits(DataOptions(written)), tmp_path / "own")
    assert [file.name for file in (tmp_path / "own").iterdir()] == ["precious"]


def test_a_picture_that_is_gone_leaves_no_shards(pictures: Path, tmp_path: Path) -> None:
    jsonl_files(pictures)
    splits = read_splits(DataOptions(pictures))
    (pictures / "images" / "c.gif").unlink()
    with pytest.raises(DataError, match=r"train.jsonl:record 3: the picture .*c.gif cannot be read"):
        write_shards(splits, tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


def test_verify_finds_a_flipped_bit(written: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(written, tmp_path / "copy"))
    assert run(shards, "--verify", folder).stdout == "ok 9 shards\n"
    content = bytearray((folder / "val-000001.tar").read_bytes())
    content[700] ^= 1
    (folder / "val-000001.tar").write_bytes(content)
    result = run(shards, "--verify", folder)
    assert result.exit_code == 1
    assert (
        result.stderr
        == f"Error: {folder / 'val-000001.tar'}: its sha256 is not the one in shards.json; copy it again\n"
    )


def test_a_model_trained_on_shards_is_the_same_bit_for_bit(written: Path, colours: Path, tmp_path: Path) -> None:
    model = ModelConfig(image_size=16, width=16, num_layers=1, num_heads=2, hidden=16, vocab_size=60)
    config = TrainConfig(epochs=1, batch_size=8, random_crop=0.5)
    runs = []
    for name, data in (("shards", written), ("files", colours)):
        train_run(tmp_path / name, model, config, load_splits(DataOptions(data)), device="cpu")
        runs.append(load_checkpoint(tmp_path / name / LAST_NAME).model)
    assert all(bool((tensor == runs[1][name]).all()) for name, tensor in runs[0].items())


def test_the_pattern_of_training_shards_brings_what_lies_beside_them(written: Path, tmp_path: Path) -> None:
    whole = load_splits(DataOptions(written))
    some = load_splits(DataOptions(written / "train-{000000..000003}.tar"))
    assert (len(whole.train.records), len(some.train.records)) == (54, 40)
    assert some.labels == whole.labels
    assert some.labels.ids == ("1", "2", "3")
    assert (some.val, some.test) == (whole.val, whole.test)
    both = load_splits(DataOptions(written / "{train,val}-{000000..000001}.tar"))
    assert (len(both.train.records), len(both.val.records)) == (20, 12)
    single = DataOptions(train=(written / "train-000000.tar",), val=(written / "val-{000000..000001}.tar",))
    assert len(load_splits(single).val.records) == 12


def test_commands_take_patterns(written: Path, tmp_path: Path) -> None:
    pattern = written / "train-{000000..000005}.tar"
    check = run(train, "--data", pattern, "--check")
    assert check.exit_code == 0, check.output
    assert check.stdout.startswith(f"read {written / 'train-000000.tar'}, ")
    assert "0 errors, 0 warnings; next: mlic-train --data " in check.stderr
    page = run(report, "data", "--data", pattern, "--output", tmp_path / "data.html")
    assert page.exit_code == 0, page.output
    missing = run(train, "--data", written / "train-{000004..000007}.tar", "--check")
    assert missing.exit_code == 1
    first = written / "train-000006.tar"
    assert f"2 of its 4 files are not there, the first is {first}; expected all" in missing.stderr
    assert missing.stderr.count("\n") == 1
    assert run(train, "--train", written / "none.tar", "--check").exit_code == 2


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("{000..002}.tar", ["000.tar", "001.tar", "002.tar"]),
        ("{8..10}.tar", ["8.tar", "9.tar", "10.tar"]),
        ("{08..10}.tar", ["08.tar", "09.tar", "10.tar"]),
        ("{2..1}.tar", ["2.tar", "1.tar"]),
        ("{a,b}-{1..2}.tar", ["a-1.tar", "a-2.tar", "b-1.tar", "b-2.tar"]),
        ("{0..1}{0..1}.tar", ["00.tar", "01.tar", "10.tar", "11.tar"]),
        ("{a}.tar", ["{a}.tar"]),
        ("a.tar", ["a.tar"]),
    ],
)
def test_braces_stand_for_names_as_in_a_shell(pattern: str, names: list[str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert [file.name for file in expand(tmp_path / pattern)] == names


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{0..99999999999}.tar", "more than 100000"),
        ("{0..999}{0..999}.tar", "more than 100000"),
        ("{a,b{1..2}}.tar", "found braces inside braces"),
    ],
)
def test_patterns_have_limits(pattern: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        expand(tmp_path / pattern)


def test_a_file_whose_name_has_braces_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "{1..2}.tar").touch()
    assert expand(tmp_path / "{1..2}.tar") == (tmp_path / "{1..2}.tar",)


def test_shards_of_others_are_read(tmp_path: Path, draw: Draw) -> None:
    picture = draw(tmp_path / "a.jpg").read_bytes()
    members = {
        "__index__/x.json": b"not ours",
        "./n/0.jpg": picture,
        "./n/0.txt": b"A dog,\nrunning.",
        "./n/0.cls": b"dog cat",
        "./n/0.seg.png": b"no picture of the sample",
        "n/1.JPEG": picture,
        "n/1.json": b'{"labels": ["cat"], "captions": ["One.", "Two."]}',
        "README": b"no sample",
        "n/._1.jpg": b"of a Mac",
        "n/2.txt": b"A caption alone.",
        "n/2.cls": b"",
        f"n/{'long' * 60}.png": picture,
        f"n/{'long' * 60}.cls": b"dog",
    }
    file = tar(tmp_path / "x.tar", members)
    split = read_splits(DataOptions(file))["train"]
    assert [(r.image_id, r.captions, r.labels, r.number) for r in split.records] == [
        ("n/0.jpg", ("A dog, running.",), (0, 1), 1),
        ("n/1.JPEG", ("One.", "Two."), (0,), 2),
        (None, ("A caption alone.",), (), 3),
        (f"n/{'long' * 60}.png", (), (1,), 4),
    ]
    for record in split.records:
        assert record.image is None or record.image.read_bytes() == picture


def test_keys_with_dots_end_at_the_last_one_where_no_member_has_the_first(tmp_path: Path) -> None:
    samples = {"a.v1.0.jpg": b"", "a.v1.0.txt": b"One.", "a.v1.1.jpg": b"", "a.v1.1.txt": b"Two.", "b.txt": b"Three."}
    file = tar(tmp_path / "x.tar", samples)
    *rows, warning = Shards().read_rows(file, None)
    found = [(row.image_id, row.captions) for row in rows if isinstance(row, Row)]
    assert found == [("a.v1.0.jpg", ("One.",)), ("a.v1.1.jpg", ("Two.",)), (None, ("Three.",))]
    assert "found 2 keys with dots, such as 'a.v1.0': they end at the last dot" in str(warning)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.json": b'{"image": "a.jpg"}'}, "missing-picture: the JSON names 'a.jpg'"),
        ({"a.jpg": b"", "a.v2.txt": b"x"}, "bad-row: found 'a.v2.txt' but no caption or labels of the key 'a'"),
        ({"a.txt": b"x", "a.v2.jpg": b""}, "bad-row: found 'a.v2.jpg' but no picture of the key 'a'"),
        ({"a.json": b'{"label": 1}'}, "bad-row: found the unknown key 'label'"),
        ({"a.json": b"["}, "bad-row: found '\\[', which is not JSON"),
        ({"a.json": b'{"caption": "x"}', "a.txt": b"y"}, "bad-row: found captions in the JSON and in .txt"),
        ({"a.json": b'{"labels": []}', "a.cls": b"1"}, "bad-row: found labels in the JSON and in .cls"),
        ({"a.jpg": b"", "a.png": b""}, "bad-row: found the pictures 'a.jpg', 'a.png'; expected one"),
        ({"a.txt": b"x", "a.TXT": b"y"}, "bad-row: found 'a.TXT' twice"),
        ({"a.npy": b"x"}, "bad-row: found neither a picture nor a caption"),
        ({"a.txt": b"\xff\xfex"}, "bad-row: 'a.txt': found UTF-16"),
        ({"a.txt": b"\xe9t\xe9"}, "bad-row: found the byte 0xE9, which is not UTF-8"),
        ({"a.txt": bytes((1 << 20) + 1)}, "bad-row: found 'a.txt' of 1048577 bytes; expected at most 1048576"),
        ({"a.txt": b"x", "b.txt": b"y", "a.cls": b"1"}, "duplicate-id: found the key 'a' again"),
    ],
)
def test_a_bad_sample_is_a_bad_row(members: dict[str, bytes], message: str, tmp_path: Path) -> None:
    file = tar(tmp_path / "x.tar", {**members, "z.txt": b"Good.", "z.cls": b"1"})
    with pytest.raises(DataError, match=message):
        read_splits(DataOptions(file))
    split = read_splits(DataOptions(file, skip_bad_rows=True))["train"]
    assert split.records[-1].captions == ("Good.",)
    assert len(split.skipped) == 1


def test_the_key_ends_at_the_first_dot_and_other_members_are_named_once(tmp_path: Path, draw: Draw) -> None:
    picture = draw(tmp_path / "a.png").read_bytes()
    sample = {".png": picture, ".seg.png": picture, ".cls": b"1", ".bbox.json": b"[]", ".npy": b""}
    names = ("x.y/000001", "x.y/000002")
    file = tar(tmp_path / "x.tar", {f"{name}{suffix}": data for name in names for suffix, data in sample.items()})
    split = read_splits(DataOptions(file))["train"]
    assert [record.image_id for record in split.records] == ["x.y/000001.png", "x.y/000002.png"]
    dotted, other = split.warnings
    for warning in (dotted, other):
        assert (warning.kind, warning.number, warning.severity) == ("ignored", None, "warning")
    assert "found 4 members such as 'x.y/000001.seg.png', which are not read: the key" in dotted.message
    assert "found 2 members such as 'x.y/000001.npy', which are not read: they are no picture" in other.message


def test_a_picture_is_told_by_its_content_where_its_suffix_does_not_tell(tmp_path: Path, draw: Draw) -> None:
    picture = draw(tmp_path / "a.jpg").read_bytes()
    members = {
        "0.jfif": picture, "0.cls": b"1", "1.apng": picture, "1.cls": b"1", "2.bin": picture, "2.cls": b"1",
        "3.jpg": picture, "3.thumb": picture, "3.cls": b"1", "README": b"x", "__meta__": b"x", "._3.jpg": b"x",
    }  # fmt: skip
    split = read_splits(DataOptions(tar(tmp_path / "x.tar", members)))["train"]
    assert [record.image_id for record in split.records] == ["0.jfif", "1.apng", "2.bin", "3.jpg"]
    (warning,) = split.warnings
    assert "found 2 members such as '3.thumb', which are not read" in warning.message


def test_a_member_that_is_no_picture_is_found_like_any_other(written: Path, tmp_path: Path) -> None:
    file = tar(tmp_path / "train-0.tar", {"a.jpg": b"text", "a.cls": b"1"})
    check = run(train, "--data", file, "--val", file, "--check")
    assert f"error: 2 x undecodable-picture: {file}:record 1: cannot read picture '{file}/a.jpg'" in check.stdout
    (tmp_path / "rows.csv").write_text("Labels,Caption\n1,A dog.\n")
    both = ("--train", file, "--train", tmp_path / "rows.csv")
    written_without = run(shards, *both, "--output", tmp_path / "out", "--skip-bad-rows")
    assert written_without.exit_code == 0, written_without.output
    assert f"skipped: 1 x undecodable-picture: {file}:record 1: " in written_without.stderr
    assert "train: 1 records" in written_without.stdout
    picture = read_splits(DataOptions(file))["train"].records[0].image
    assert picture is not None
    with pytest.raises(ImageError, match=r"train-0.tar/a.jpg': it is not a picture of a known format"):
        read_pixels(image_source(picture), ImageSpec(16, 16))


def test_a_shard_that_changes_under_a_run_is_noticed(tmp_path: Path, draw: Draw) -> None:
    first, second = draw(tmp_path / "a.png", seed=1).read_bytes(), draw(tmp_path / "b.png", seed=2).read_bytes()
    file = tar(tmp_path / "x.tar", {"a.png": first, "a.cls": b"1"})
    member = read_splits(DataOptions(file))["train"].records[0].image
    assert isinstance(member, Member)
    assert from_json(json.loads(json.dumps(to_json(member)))) == member
    for members in ({"0.png": second, "a.png": first}, {"b.png": first}, {"a.png": first[:-1]}):
        tar(file, members)
        with pytest.raises(ImageError, match=r"x.tar/a.png': the shard has changed: found no 'a.png' at byte 512"):
            image_source(member)
    file.unlink()
    with pytest.raises(ImageError, match=r"x.tar/a.png': there is no such file"):
        image_source(member)


def test_shards_may_lie_where_fsspec_finds_them(written: Path) -> None:
    files = fsspec.filesystem("memory")
    for file in written.glob("*.tar"):
        files.pipe(f"/far/{file.name}", file.read_bytes())
    try:
        result = run(
            train,
            "--data",
            "memory://far/train-{000000..000005}.tar",
            "--labels",
            written / "labels.csv",
            "--check",
        )
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith("read memory://far/train-000000.tar, ")
        assert "0 errors, 0 warnings; next: mlic-train --data " in result.stderr
        options = DataOptions(Path("memory://far/train-000000.tar"), labels_file=written / "labels.csv")
        splits = load_splits(options)
        here = load_splits(DataOptions(written))
        assert fingerprint({"val": splits.val}) == fingerprint({"val": here.val})
        picture, other = splits.train.records[3].image, here.train.records[3].image
        assert picture is not None
        assert other is not None
        spec = ImageSpec(16, 16)
        np.testing.assert_array_equal(read_pixels(image_source(picture), spec), read_pixels(image_source(other), spec))
        with pytest.raises(DataError, match=r"train-7.tar: cannot be read: there is no such file"):
            load_splits(DataOptions(Path("memory://far/train-7.tar"), labels_file=written / "labels.csv"))
    finally:
        files.rm("/far", recursive=True)


def test_an_address_that_nothing_can_open_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ours://x/a.tar': Protocol not known: ours; expected one that fsspec"):
        read_splits(DataOptions(train=(Path("ours://x/a.tar"),)))


@pytest.fixture(scope="module")
def splits(written: Path) -> Splits:
    return load_splits(DataOptions(written))


@pytest.mark.parametrize("window", [1, 2, 100])
def test_shards_mixed_a_few_at_a_time_still_give_every_row_once(splits: Splits, window: int) -> None:
    config = TrainConfig(batch_size=5, text_batch_size=4, shuffle_shards=window)
    records = splits.train.records
    plans = [plan_epoch(records, config, epoch) for epoch in range(3)]
    assert plans[1] == plan_epoch(records, config, 1)
    orders = [[index for batch in plan for _, index in batch] for plan in plans]
    assert orders[0] != orders[1]
    for order, plan in zip(orders, plans, strict=True):
        assert sorted(order) == list(range(54))
        assert all(len({records[index].image is None for _, index in batch}) == 1 for batch in plan)
        shards_in_order = [records[index].file for index in order if records[index].image is not None]
        seen = list(dict.fromkeys(shards_in_order))
        for start in range(0, len(seen), window):
            size = sum(shard in seen[start : start + window] for shard in shards_in_order)
            first = shards_in_order.index(seen[start])
            assert set(shards_in_order[first : first + size]) == set(seen[start : start + window])
    assert len({tuple(dict.fromkeys(records[index].file for index in order)) for order in orders}) > 1
