"""The tables of benchmarks/growth.md, and the formula that the page explains."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MEASURED = BENCHMARKS / "results" / "growth-2cpu-xeon.json"


@pytest.fixture
def growth_table(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("growth_table")


def measurement(rows: int, seconds: float, workers: int = 2) -> dict[str, Any]:
    return {
        "engine": "local",
        "workers": workers,
        "rows": rows,
        "seconds": [seconds],
        "pictures_per_second": rows / seconds,
        "cpu_ms_per_picture": 10.0,
        "peak_mb": 500.0,
    }


def test_the_page_has_the_tables(growth_table: Any) -> None:
    page = (BENCHMARKS / "growth.md").read_text(encoding="utf-8")
    assert growth_table.measured_table(MEASURED) in page
    assert growth_table.rate_table(MEASURED) in page


def test_one_job_alone_has_no_rate(growth_table: Any, tmp_path: Path) -> None:
    file = tmp_path / "growth.json"
    run = {"model": "m@1", "precision": "int8", "machine": {"cpus": 2}, "load_average_before": 0.1}
    file.write_text(json.dumps({"runs": [{**run, "measurements": [measurement(10, 1.0)]}]}))
    assert len(growth_table.rate_table(file).splitlines()) == 2
    assert len(growth_table.measured_table(file).splitlines()) == 3


def test_the_formula_goes_through_the_smallest_and_the_largest_job(growth_table: Any) -> None:
    rate = growth_table.fit_rate([measurement(100, 2.0), measurement(500, 9.0), measurement(1100, 12.0)])
    assert rate.start == pytest.approx(1.0)
    assert rate.rows_per_second == pytest.approx(50.0)  # of each of the two workers
    assert rate.seconds(100) == pytest.approx(2.0)
    assert rate.seconds(1100) == pytest.approx(12.0)


def test_a_combination_that_was_measured_again_counts_as_it_was_measured_last(
    growth_table: Any, tmp_path: Path
) -> None:
    runs = [
        {
            "model": "m@1",
            "precision": "int8",
            "machine": {"cpus": 2},
            "load_average_before": load,
            "measurements": [each],
        }
        for load, each in ((0.1, measurement(1000, 10.0)), (1.5, measurement(1000, 20.0)), (0.1, measurement(10, 1.0)))
    ]
    file = tmp_path / "growth.json"
    file.write_text(json.dumps({"runs": runs}))
    assert growth_table.measured_table(file).splitlines()[2:] == [
        "| m@1 int8 | local | 2 | 10 | 10.0 | 10.00 | 500 |",
        "| m@1 int8 | local | 2 | 1,000 | 50.0 (busy) | 10.00 | 500 |",
    ]
