"""`mlic-infer --engine ray` and `RayPredictor` on a real Ray cluster: two nodes, and workers that die."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray
from click.testing import CliRunner, Result
from PIL import Image
from pyarrow import parquet
from ray.cluster_utils import Cluster

from mlic_runtime import RayPredictor
from mlic_runtime.cli.infer import infer

pytestmark = [
    pytest.mark.usefixtures("cluster"),
    # What Ray warns of differs from version to version; our own warnings are errors in all other tests.
    pytest.mark.filterwarnings("ignore"),
]

ROWS = 46
PARTS = 12


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, of which every fifth is missing; some have a caption beside them, and rows.csv has one for each."""
    folder = tmp_path_factory.mktemp("in")
    (folder / "deeper").mkdir()
    lines = ["ImageID,Caption"]
    for index, picture in enumerate(np.random.default_rng(3).integers(0, 256, (ROWS, 6, 8, 3), dtype=np.uint8)):
        name = f"deeper/{index}.png" if index % 3 else f"{index}.png"
        if index % 5 != 4:
            Image.fromarray(picture).save(folder / name)
            if index % 2:
                (folder / name).with_suffix(".txt").write_text("bright red\n")
        lines.append(f'{name},"{("red", "bright, blue", "no", "")[index % 4]}"')
    lines[7] = "../outside.png,red"
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    return folder


def run(source: "str | Path", *more: "str | Path") -> Result:
    arguments = ["--input", source, "--batch-size", "4", "--threads", "1", *more]
    return CliRunner().invoke(infer, [str(argument) for argument in arguments])


def run_ray(source: "str | Path", output: Path, *more: "str | Path") -> Result:
    return run(source, "--engine", "ray", "--output", output, "--rows-per-file", "4", *more)


def results_of(output: Path) -> pa.Table:
    """The results of a complete folder, in the order of the parts' names, and with every row once."""
    files = sorted(output.glob("*.parquet"))
    total = json.loads((output / "_SUCCESS").read_text())
    assert [path.name for path in sorted(output.iterdir())] == [
        "_SUCCESS", "_mlic.json", *(f"part-{index:06}.parquet" for index in range(total["parts"]))
    ]  # fmt: skip
    table = pa.concat_tables(parquet.read_table(path).replace_schema_metadata() for path in files)
    assert table["row"].to_pylist() == list(range(1, total["rows"] + 1))
    assert total["errors"] == total["rows"] - table["error_type"].null_count
    return table


def as_local(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows as the local engine writes them in JSON lines."""
    for row in table.to_pylist():
        del row["row"]
        kind, message = row.pop("error_type"), row.pop("error_message")
        if kind is None:
            yield {**row, "probabilities": {k: v for k, v in row["probabilities"].items() if v is not None}}
        else:
            yield {"image": row["image"], "error": {"type": kind, "message": message}}


def local(source: "str | Path", *more: "str | Path") -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(source, *more).stdout.splitlines()]


@pytest.fixture(scope="session")
def undisturbed(folder: Path, tmp_path_factory: pytest.TempPathFactory, tickets: Path, cluster: Cluster) -> pa.Table:
    """The results of a run in which nobody dies; the first part waits for another worker than its own."""
    output = tmp_path_factory.mktemp("out") / "undisturbed"
    (tickets / "hold-0").touch()

    def release() -> None:
        _wait_for(tickets, "wrote-*")
        (tickets / "hold-0").unlink()

    with _at_the_same_time(release):
        result = run_ray(folder / "rows.csv", output)
    assert result.exit_code == 1
    assert f"Error: 10 of {ROWS} rows failed, the first of this run: row 5: cannot read picture " in result.stderr
    assert len({path.name.split("-")[1] for path in tickets.glob("wrote-*")}) == 2
    return results_of(output)


def _wait_for(tickets: Path, sign: str) -> None:
    """Until there is a file of that name; no longer than two minutes, and the test fails then."""
    pause = threading.Event()
    for _ in range(2400):
        if next(tickets.glob(sign), None) is not None:
            return
        pause.wait(0.05)


@contextmanager
def _at_the_same_time(action: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=action)
    thread.start()
    try:
        yield
    finally:
        thread.join()


# --- the same answers as without Ray


def test_rows_of_a_file_are_those_of_the_local_engine(folder: Path, undisturbed: pa.Table) -> None:
    assert len(undisturbed) == ROWS
    assert list(as_local(undisturbed)) == local(folder / "rows.csv")
    assert undisturbed["error_type"].to_pylist()[6] == "InputError"  # ../outside.png


@pytest.mark.parametrize("kind", ["folder", "jsonl", "parquet", "uri"])
def test_rows_of_every_kind_are_those_of_the_local_engine(folder: Path, tmp_path: Path, kind: str) -> None:
    source: str | Path = folder
    options: list[str | Path] = []
    pictures = sorted(folder.rglob("*.png"))[:9]
    if kind == "jsonl":
        source = tmp_path / "rows.jsonl"
        lines = [json.dumps({"image": str(path.relative_to(folder)), "caption": "red"}) + "\n" for path in pictures]
        source.write_text("".join([*lines, "[]\n"]))
        options = ["--image-root", folder, "--threshold", "0.3", "--top-k", "2", "--at-least-one"]
    elif kind == "parquet":
        source = tmp_path / "rows.parquet"
        contents = [*(path.read_bytes() for path in pictures), b"none", None]
        parquet.write_table(pa.table({"image": contents, "caption": ["red"] * len(contents)}), source)
        options = ["--no-captions"]
    elif kind == "uri":
        source = f"local://{folder}/rows.csv"
    run_ray(source, tmp_path / "out", *options)
    assert list(as_local(results_of(tmp_path / "out"))) == local(source, *options)


# --- faults


@pytest.mark.parametrize(
    "plan",
    [
        ["before-0", "amid-5", "after-11"],
        ["amid-1", "amid-2", "after-8"],
        ["read-0", "read-6", "before-6", "after-9"],
    ],
)
def test_workers_that_are_killed_leave_no_gap_and_no_duplicate(
    folder: Path, tmp_path: Path, tickets: Path, undisturbed: pa.Table, plan: list[str]
) -> None:
    for ticket in plan:
        (tickets / ticket).touch()
    result = run_ray(folder / "rows.csv", tmp_path / "out")
    assert f"Error: 10 of {ROWS} rows failed" in result.stderr
    died = [path.name.split("-", 2)[1:] for path in tickets.glob("died-*")]
    assert sorted(ticket for _, ticket in died) == sorted(plan)
    assert len({pid for pid, _ in died}) == len(plan)
    assert results_of(tmp_path / "out").equals(undisturbed)


def test_a_node_that_is_lost_is_made_up_for(
    folder: Path, tmp_path: Path, tickets: Path, undisturbed: pa.Table, cluster: Cluster
) -> None:
    """Its actor and the process that runs it are gone at once; one node goes on alone."""
    (tickets / "hold-7").touch()

    def lose() -> None:
        _wait_for(tickets, "holding-7")
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
        (tickets / "hold-7").unlink()

    with _at_the_same_time(lose):
        run_ray(folder / "rows.csv", tmp_path / "out")
    assert results_of(tmp_path / "out").equals(undisturbed)
    cluster.add_node(num_cpus=1, object_store_memory=100 * 1024 * 1024)


# --- resuming


def test_a_run_that_was_stopped_is_completed(folder: Path, tmp_path: Path, undisturbed: pa.Table) -> None:
    output = tmp_path / "out"
    result = run_ray(folder / "rows.csv", output, "--on-error", "stop")
    assert result.exit_code == 1
    assert "Error: row " in result.stderr
    assert not (output / "_SUCCESS").exists()
    kept = {path: path.stat().st_mtime_ns for path in output.glob("part-*")}
    assert run_ray(folder / "rows.csv", output, "--resume").exit_code == 1
    assert results_of(output).equals(undisturbed)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


# --- in Python


def test_the_class_labels_a_dataset(folder: Path) -> None:
    names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*.png"))]
    table = pa.table({"id": range(len(names) + 1), "path": [*names, "../a.png"], "caption": ["red"] * (len(names) + 1)})
    found = (
        ray.data.from_arrow([table.slice(0, 8), table.slice(8)])
        .map_batches(
            RayPredictor,
            fn_constructor_kwargs={"image_root": str(folder)},
            batch_format="pyarrow",
            batch_size=8,
            num_cpus=1,
            compute=ray.data.ActorPoolStrategy(size=2),
        )
        .take_all()
    )
    found.sort(key=lambda row: row["id"])
    assert [row["path"] for row in found] == [*names, "../a.png"]
    assert all("red" in row["labels"] for row in found[:-1])
    assert found[-1]["labels"] is None
    assert found[-1]["error_type"] == "InputError"


def test_pictures_in_memory_need_no_folder(folder: Path) -> None:
    paths = [str(path) for path in sorted(folder.glob("*.png"))]
    found = (
        ray.data.read_binary_files(paths)
        .map_batches(
            RayPredictor,
            fn_constructor_kwargs={"image_column": "bytes"},
            num_cpus=1,
            compute=ray.data.ActorPoolStrategy(size=1),
        )
        .take_all()
    )
    assert len(found) == len(paths)
    assert all(row["error_type"] is None and row["probabilities"].shape == (3,) for row in found)
