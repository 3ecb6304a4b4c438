"""benchmarks/release.py and label_limits.py, on a package whose answers can be computed by hand."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "data" / "tiny"
RED, BLACK = (255, 0, 0), (0, 0, 0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Shared data of four test rows, one of them without any label, two val rows and two competition rows."""
    coco, competition = tmp_path / "data" / "coco18", tmp_path / "data" / "competition"
    (coco / "images").mkdir(parents=True)
    competition.mkdir()
    for number, colour in enumerate((RED, RED, BLACK, RED, RED, BLACK), start=1):
        Image.new("RGB", (8, 6), colour).save(coco / "images" / f"{number:012}.png")
    (coco / "labels.csv").write_text("LabelID,Name\n1,blue\n2,green\n3,red\n")  # not the order of the package
    rows = [
        ("1", "3", "red"),
        ("2", "1 3", "blue"),
        ("3", "2", "green"),
        ("4", "", "bright"),
        ("5", "3", ""),
        ("6", "1", "blue"),
    ]
    lines = [f"{int(number):012}.png,{labels},{caption}\n" for number, labels, caption in rows]
    header = "ImageID,Labels,Caption\n"
    (coco / "test.csv").write_text(header + "".join(lines[:4]))
    (coco / "val.csv").write_text(header + "".join(lines[4:]))
    (coco / "train.csv").write_text(f"{header}a.png,1 3,\nb.png,3,\n")
    (coco / "captions.csv").write_text("Labels,Caption\n2,green\n")
    (competition / "test.csv").write_text("ImageID,Caption\n1.jpg,red\n2.jpg,bright\n3.jpg,blue\n")
    (competition / "test_labels.csv").write_text("ImageID,Labels\n1.jpg,3\n3.jpg,1\n")
    return tmp_path / "data"


def script(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(ROOT / "benchmarks" / name), *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_a_package_is_measured_in_every_graph_and_mode(data: Path, tmp_path: Path) -> None:
    (tmp_path / "val2017.txt").write_text("# of COCO\n1\nCOCO_val2014_000000000003.jpg\n99\n")
    given = ["--data", data, "--model", TINY, "--rows", tmp_path / "val2017.txt"]
    done = script("release.py", *given, "--output", tmp_path / "r.json", "--table", tmp_path / "r.md")
    assert done.returncode == 0, done.stderr
    assert "val2017.txt: 1 of 3 names are no test row" in done.stderr
    assert "fp32: the manifest has no metrics of these splits" in done.stderr
    found: dict[str, Any] = json.loads((tmp_path / "r.json").read_text())
    assert found["model"] == "tiny@1.0.0"
    assert list(found["results"]) == ["fp32", "fp16"]
    measured = found["results"]["fp32"]
    # Logits: 4 * (mean colour - 0.5) + embedding. A red picture: +2, -2, -2; a black one or none: -2 each.
    assert measured["test-caption-only"]["samples_f1"] == pytest.approx((1 + 2 / 3 + 1) / 3, abs=1e-5)
    assert measured["competition-caption-only"]["rows"] == 2
    assert measured["competition-caption-only"]["samples_f1"] == 1.0
    assert measured["val-caption-only"]["rows"] == 1  # the other row has no caption
    assert measured["val"]["rows"] == 2
    both, picture = measured["test"], measured["test-picture-only"]
    assert (both["rows"], both["negatives"], both["samples_f1"]) == (3, 1, 1.0)
    assert both["false_labels_per_negative"] == 1.0  # the red picture
    assert picture["samples_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3, abs=1e-5)
    assert measured["test, rows of val2017"]["rows"] == 2
    assert measured["test, rows not of val2017"]["rows"] == 1
    assert found["labels"]["fp32"]["test-picture-only"]["blue"] == {
        "positives": 1,
        "ap": pytest.approx(1 / 3, abs=1e-5),
        "missed": 1,
        "false": 0,
        "false_on_negatives": 0,
    }
    assert found["rows_with_label"]["red"] == {"train": 2, "captions": 0, "captions_val2014": 0}
    table = (tmp_path / "r.md").read_text()
    assert table == done.stdout
    assert "| `fp16` | competition, caption only (2) | 1.000 [1.000, 1.000] |" in table
    limits = script("label_limits.py", tmp_path / "r.json")
    assert limits.returncode == 0, limits.stderr
    assert "| picture | 2 of 4 | 0 | 0% | 1 |" in limits.stdout
    assert "| green | 0 | 1 | 1 | 1.000 |" in limits.stdout
    refused = script("label_limits.py", tmp_path / "r.json", "--precision", "int8")
    assert refused.stderr.endswith("r.json has no graph int8; it has: fp32, fp16\n")


def test_what_does_not_fit_is_refused_by_one_line(data: Path, tmp_path: Path) -> None:
    given = ["--data", data, "--model", TINY]
    (tmp_path / "list.txt").write_text("7\n")
    cases = [
        ([*given, "--rows", tmp_path / "list.txt"], "names none of the 4 test rows; expected a line each, such as 0")
    ]
    cases.append(([*given, "--precision", "int8"], "has no int8 graph; it has: fp32, fp16"))
    shutil.copytree(data, tmp_path / "other")
    (tmp_path / "other" / "coco18" / "labels.csv").write_text("LabelID,Name\n1,blue\n2,green\n3,yellow\n")
    cases.append((["--data", tmp_path / "other", "--model", TINY], "and the data differ in the label 'red'"))
    shutil.copytree(data, tmp_path / "lost")
    (tmp_path / "lost" / "coco18" / "images" / "000000000001.png").unlink()
    cases.append((["--data", tmp_path / "lost", "--model", TINY], "1 of 4 pictures are missing, such as"))
    for arguments, message in cases:
        refused = script("release.py", *arguments)
        assert refused.returncode != 0
        assert message in refused.stderr
        assert "Traceback" not in refused.stderr
