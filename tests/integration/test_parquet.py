"""Rows from Parquet files, which need the extra `parquet` of mlic-runtime."""

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from mlic_runtime import InputError, Predictor, Row, open_rows

ROOT = Path(__file__).parents[2]
CAT = ROOT / "examples" / "cat.png"


def rows_of(path: Path) -> list[Row]:
    with open_rows(path) as reader:
        return list(reader)


def test_names_and_captions_are_read_as_from_csv(tmp_path: Path) -> None:
    table = {"id": [1, 2, 3], "Caption": [" red  dog", None, "green"], "image": ["a.jpg", "../b.jpg", None]}
    parquet.write_table(pa.table(table), tmp_path / "rows.parquet")
    (tmp_path / "rows.csv").write_text("id,Caption,image\n1, red  dog,a.jpg\n2,,../b.jpg\n3,green,\n")
    found, expected = rows_of(tmp_path / "rows.parquet"), rows_of(tmp_path / "rows.csv")
    assert [(row.image, row.caption, row.name, str(row.error)) for row in found] == [
        (row.image, row.caption, row.name, str(row.error)) for row in expected
    ]
    with open_rows(tmp_path / "rows.parquet") as reader:
        assert reader.note == "not read from the input: id"
        assert reader.share() == pytest.approx(1 / 3)


def test_pictures_may_be_in_the_file(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"image": [CAT.read_bytes(), b"not a picture"]}), tmp_path / "rows.parquet")
    predictor = Predictor.load(ROOT / "tests" / "data" / "tiny")
    good, bad = predictor.predict_rows(rows_of(tmp_path / "rows.parquet"))
    assert good.to_dict()["probabilities"] == pytest.approx(predictor.predict(CAT).probabilities, abs=1e-6)
    assert bad.to_dict()["error"]["type"] == "ImageError"


def test_hugging_face_s_pictures_are_read(tmp_path: Path) -> None:
    cells = [{"bytes": CAT.read_bytes(), "path": "cat.png"}, {"bytes": None, "path": "b.png"}, None]
    table = {"image": cells, "text": ["a cat", None, "green"], "labels": [["cat"], [], None]}
    parquet.write_table(pa.table(table), tmp_path / "rows.parquet")
    with open_rows(tmp_path / "rows.parquet") as reader:
        assert reader.note == "not read from the input: labels"
        rows = list(reader)
    assert [(row.image, row.caption, row.name) for row in rows] == [
        (CAT.read_bytes(), "a cat", "cat.png"),
        (str(tmp_path / "b.png"), None, "b.png"),
        (None, "green", None),
    ]


def test_values_of_other_types_cost_one_row(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"image": [1.5, None], "caption": ["red", "red"]}), tmp_path / "rows.parquet")
    bad, good = rows_of(tmp_path / "rows.parquet")
    assert str(bad.error) == "row 1: found a picture that is float; expected a text"
    assert good.caption == "red"


def test_rows_are_streamed(tmp_path: Path) -> None:
    table = pa.table({"caption": [f"caption {index}" for index in range(20_000)]})
    parquet.write_table(table, tmp_path / "rows.parquet", row_group_size=1000)
    with open_rows(tmp_path / "rows.parquet") as reader:
        rows = iter(reader)
        assert next(rows).caption == "caption 0"
        assert reader.share() == pytest.approx(1 / 20_000)
        assert sum(1 for _ in rows) == 19_999


def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match=r"the input '.*rows\.parquet': found what is not Parquet: "):
        open_rows(tmp_path / "rows.parquet")


def test_columns_that_are_not_known_are_refused(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"number": [1]}), tmp_path / "rows.parquet")
    with pytest.raises(InputError, match="found number; expected a column"):
        open_rows(tmp_path / "rows.parquet")
