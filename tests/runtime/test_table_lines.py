import io

import pytest

from mlic_runtime.tables.table import BrokenRow, read_csv, read_json, read_json_lines


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_rows_of_csv_say_the_line_that_they_begin_with(end: str) -> None:
    lines = ["", "image,caption", 'a.png,"one', "", 'two"', "", "b.png,three", '"c"x,four', "d.png,five", "e.png", ""]
    rows = list(read_csv(io.BytesIO(end.join(lines).encode())).rows)
    assert [(row.number, row.line) for row in rows] == [(1, 3), (2, 7), (3, 8), (4, 9), (5, 10)]
    assert [isinstance(row, BrokenRow) for row in rows] == [False, False, True, False, True]


def test_a_quote_that_is_never_closed_costs_its_own_line() -> None:
    rows = list(read_csv(io.BytesIO(b'image\n"a.png\nb.png\nc.png\n')).rows)
    assert [(row.line, isinstance(row, BrokenRow)) for row in rows] == [(2, True), (3, False), (4, False)]


def test_lines_of_json_lines_are_those_of_the_file_and_of_an_array_its_entries() -> None:
    assert [row.line for row in read_json_lines(io.BytesIO(b'{"a": 1}\n\n{"a": 2}\nno\n')).rows] == [1, 3, 4]
    assert [row.line for row in read_json(io.BytesIO(b'[{"a": 1},\n\n{"a": 2}]')).rows] == [1, 2]
