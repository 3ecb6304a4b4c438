import csv
import hashlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import mlic_runtime
from mlic_runtime.bench import benchmark as bench_module
from mlic_runtime.cli import infer as cli
from mlic_runtime.cli.bench import bench
from mlic_runtime.cli.infer import infer
from mlic_runtime.graph.opening import OpenedGraph, open_graph
from mlic_runtime.picture.decode import ImageSource
from mlic_runtime.predict.predictor import Predictor


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A PNG of the size of the tiny model, all red."""
    path = tmp_path / "red.png"
    Image.fromarray(np.full((6, 8, 3), (255, 0, 0), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def use_tiny(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLIC_MODEL", str(tiny))


@pytest.fixture
def no_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_module, "entry_points", lambda group: [])


def run_infer(*arguments: "str | Path", stdin: "bytes | None" = None) -> Result:
    return CliRunner().invoke(infer, [os.fspath(argument) for argument in arguments], input=stdin)


def run_process(
    code: str, *arguments: "str | Path", stdin: "bytes | None" = None
) -> "subprocess.CompletedProcess[bytes]":
    """A real Python process that imports the same mlic_runtime as this one."""
    here = str(Path(mlic_runtime.__file__).parents[1])
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-c", code, *(os.fspath(argument) for argument in arguments)]
    return subprocess.run(
        command, input=stdin, capture_output=True, env={**os.environ, "PYTHONPATH": path}, check=False
    )


INFER = "from mlic_runtime.cli.infer import main; main()"
BENCH = "from mlic_runtime.cli.bench import bench; bench(prog_name='mlic-bench')"
# Before one of them: the process says in the end what it had loaded, also if it ends by os._exit.
REPORT = (
    "import atexit, json, os, sys; end = os._exit; os._exit = lambda code: (atexit._run_exitfuncs(), end(code)); "
    "atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr, flush=True)); "
)


# --- mlic-infer: output


@pytest.mark.usefixtures("use_tiny")
def test_the_table_shows_every_label_and_marks_the_predicted(picture: Path) -> None:
    result = run_infer(picture, "bright")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout == (
        f"image    {picture}\n"
        "caption  bright\n"
        "model    tiny@1.0.0\n"
        "\n"
        "label  probability  predicted\n"
        "red         0.9526  yes\n"
        "green       0.2689\n"
        "blue        0.2689\n"
    )


@pytest.mark.usefixtures("use_tiny")
def test_json_is_what_the_api_says(picture: Path, tiny: Path) -> None:
    expected = Predictor.load(tiny).predict(str(picture), "no blue", top_k=2, threshold=0.1).to_dict()
    for format_, lines in (("json", 12), ("jsonl", 1)):
        result = run_infer(picture, "no blue", "--top-k", "2", "--threshold", "0.1", "--format", format_)
        assert result.exit_code == 0
        assert json.loads(result.stdout) == expected
        assert list(json.loads(result.stdout)) == ["image", "caption", "labels", "probabilities", "model"]
        assert result.stdout.count("\n") == lines


@pytest.mark.usefixtures("use_tiny")
def test_csv_has_one_column_per_label_in_the_order_of_the_manifest(picture: Path) -> None:
    result = run_infer(picture, 'say "blue",\nbright', "--format", "csv", "--threshold", "0.2", "--top-k", "2")
    header, row = csv.reader(io.StringIO(result.stdout, newline=""))
    assert header == ["image", "caption", "model", "labels", "p_red", "p_green", "p_blue"]
    assert row[:4] == [str(picture), 'say "blue",\nbright', "tiny@1.0.0", "red;blue"]
    assert 0 < float(row[6]) < float(row[4]) < 1
    assert row[5] == "", "outside the top k"


@pytest.mark.usefixtures("use_tiny")
def test_a_dash_reads_the_picture_from_standard_input(picture: Path) -> None:
    result = run_infer("-", "--format", "json", stdin=picture.read_bytes())
    assert json.loads(result.stdout)["labels"] == ["red"]
    assert json.loads(result.stdout)["image"] is None


@pytest.mark.usefixtures("use_tiny")
def test_odd_names_are_safe_in_every_format(tmp_path: Path, picture: Path) -> None:
    name = os.fsdecode(b"a\n\x1b[31m\xc2\x9b\xff.png")
    odd = picture.rename(tmp_path / name)
    table = run_infer(odd).stdout
    assert table.startswith(f"image    {tmp_path}/a\\n\\x1b[31m\\x9b\\udcff.png\n")
    for format_ in ("json", "jsonl"):
        output = run_infer(odd, "\u2028", "--format", format_).stdout
        assert json.loads(output)["image"] == str(odd)
        assert json.loads(output)["caption"] == "\u2028"
        assert all(character.isprintable() or character == "\n" for character in output)
    assert run_infer(odd, "--format", "csv").exit_code == 0


@pytest.mark.usefixtures("use_tiny")
def test_text_is_written_as_it_is(picture: Path) -> None:
    assert "Straße 犬 😀" in run_infer(picture, "Straße 犬 😀", "--format", "jsonl").stdout


# --- mlic-infer: packages


def test_verify_prints_a_line_for_every_file(tiny: Path) -> None:
    result = run_infer("--verify", tiny)
    assert (result.exit_code, result.stderr) == (0, "")
    *lines, last = result.stdout.splitlines()
    assert last == "ok"
    assert [line.split()[:2] for line in lines] == [
        ["model.fp32.onnx", "898"],
        ["model.fp16.onnx", "856"],
        ["tokenizer.json", "394"],
        ["README.md", "58"],
    ]
    for line in lines:
        digest = hashlib.sha256((tiny / line.split()[0]).read_bytes()).hexdigest()
        assert line.split()[2] == digest[:12]


def test_verify_stops_at_the_first_problem(tiny_copy: Path) -> None:
    (tiny_copy / "model.fp16.onnx").write_bytes(b"")
    result = run_infer("--verify", tiny_copy)
    assert result.exit_code == 1
    assert result.stdout.startswith("model.fp32.onnx ")
    assert result.stdout.count("\n") == 1
    problem = "has 0 bytes, expected 856: it was damaged or changed; get the package again"
    assert result.stderr == f"Error: {tiny_copy}/model.fp16.onnx {problem}\n"


# --- mlic-infer: options and errors


def test_the_model_can_be_given(picture: Path, tiny_picture: Path) -> None:
    result = run_infer(picture, "--model", tiny_picture, "--provider", "auto", "--threads", "1", "--spin")
    assert "tiny-picture@1.0.0" in result.stdout


@pytest.mark.usefixtures("use_tiny")
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["missing.jpg"], "cannot read picture 'missing.jpg': there is no such file or folder"),
        (["PICTURE", "--model", "unknown"], "there is no folder, .mlic file or model named 'unknown'"),
        (["PICTURE", "--model", "./unknown"], "there is no folder or .mlic file './unknown'"),
        (["PICTURE", "--precision", "int8"], "has no int8 graph; it has: fp32, fp16"),
        (["PICTURE", "--provider", "directml"], "offers no provider 'directml'; available here: "),
        (["PICTURE", "--max-pixels", "47"], "8 x 6 pixels are more than the limit of 47"),
        (["PICTURE", "--threshold", "nan"], "threshold must be in [0, 1], found nan"),
        (["-"], "cannot read a picture from standard input: it is empty"),
        (["--verify", "unknown"], "there is no folder, .mlic file or model named 'unknown'"),
        (["a\nb.jpg", "--model", "un\nknown"], r"'un\nknown'"),
    ],
)
def test_what_mlic_refuses_is_one_line_and_exit_code_1(picture: Path, arguments: list[str], error: str) -> None:
    result = run_infer(*[str(picture) if argument == "PICTURE" else argument for argument in arguments])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert error in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.usefixtures("use_tiny")
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["PICTURE", "caption", "surplus"],
        ["PICTURE", "--top-k", "0"],
        ["PICTURE", "--top-k", "x"],
        ["PICTURE", "--threshold", "1.5"],
        ["PICTURE", "--threads", "0"],
        ["PICTURE", "--max-pixels", "0"],
        ["PICTURE", "--format", "xml"],
        ["PICTURE", "--provider", "gpu"],
        ["PICTURE", "--precision", "fp8"],
        ["PICTURE", "--list-models"],
        ["PICTURE", "--verify", "hybrid"],
        ["--list-models", "--verify", "hybrid"],
        ["--list-models", "--format", "submission"],
        ["--verify", "hybrid", "--format", "json"],
        ["--verify", "hybrid", "--model", "hybrid"],
        ["PICTURE", "--surprise"],
    ],
)
def test_wrong_usage_is_exit_code_2(picture: Path, arguments: list[str]) -> None:
    result = run_infer(*[str(picture) if argument == "PICTURE" else argument for argument in arguments])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Usage:" in result.stderr


def test_the_version_is_shown() -> None:
    assert run_infer("--version").stdout == f"mlic-infer, version {mlic_runtime.__version__}\n"
    assert mlic_runtime.__version__ in CliRunner().invoke(bench, ["--version"]).stdout


@pytest.mark.parametrize(
    ("command", "headings"),
    [
        (infer, ["Options", "Options of the model", "Options of --input", "Options of --engine ray"]),
        (bench, ["Options", "Options of the model", "Other measurements"]),
    ],
)
def test_help_shows_options_under_headings(command: click.Command, headings: list[str]) -> None:
    lines = CliRunner().invoke(command, ["--help"]).stdout.splitlines()
    assert [line[:-1] for line in lines if line.endswith(":") and not line.startswith(" ")] == headings
    shown = [
        words[0] for line in lines[lines.index("Options:") :] if (words := re.findall(r"^  (?:-v, )?(--\S+)", line))
    ]
    options = [parameter.opts[-1] for parameter in command.params if isinstance(parameter, click.Option)]
    assert sorted(shown) == sorted(["--help", *(option for option in options if option != "input_")])


# --- real processes


def test_the_room_of_the_commands_runs_as_mlic_infer() -> None:
    code = "import runpy; runpy.run_module('mlic_runtime.cli', run_name='__main__')"
    result = run_process(code, "--version")
    assert (result.returncode, result.stdout.decode()) == (0, f"mlic-infer, version {mlic_runtime.__version__}\n")
    assert run_process(code).returncode == 2


@pytest.mark.usefixtures("use_tiny")
@pytest.mark.parametrize(
    ("code", "arguments", "output"),
    [
        (INFER, ["--help"], b"Example:  mlic-infer"),
        (BENCH, ["--help"], b"Example:  mlic-bench"),
        (INFER, ["--list-models"], b"$MLIC_MODEL"),
        (INFER, ["--verify", "TINY"], b"\nok\n"),
    ],
)
def test_what_runs_no_graph_loads_nothing_heavy(tiny: Path, code: str, arguments: list[str], output: bytes) -> None:
    result = run_process(REPORT + code, *[str(tiny) if argument == "TINY" else argument for argument in arguments])
    assert result.returncode == 0
    assert output in result.stdout
    loaded = json.loads(result.stderr)
    assert "click" in loaded
    assert not {"numpy", "PIL", "onnxruntime", "tokenizers", "torch"} & set(loaded)


@pytest.mark.usefixtures("use_tiny")
def test_a_prediction_loads_neither_what_batches_need_nor_readers_of_other_formats(picture: Path) -> None:
    result = run_process(REPORT + INFER, picture, "bright")
    assert result.returncode == 0
    loaded = set(json.loads(result.stderr))
    assert {"PIL.PngImagePlugin", "mlic_runtime.predict.predictor"} <= loaded
    assert not {f"PIL.{name}ImagePlugin" for name in ("Bmp", "Gif", "Jpeg", "Tiff", "WebP")} & loaded
    assert (
        not {
            f"mlic_runtime.{name}"
            for name in ("batch.local", "batch.formats", "batch.resumable_file", "cli.batch", "rows.reader", "ray")
        }
        & loaded
    )


@pytest.mark.usefixtures("use_tiny")
def test_a_process_keeps_data_and_errors_apart(picture: Path) -> None:
    good = run_process(INFER, "-", "bright", "--format", "json", stdin=picture.read_bytes())
    assert (good.returncode, good.stderr) == (0, b"")
    assert json.loads(good.stdout)["labels"] == ["red"]
    bad = run_process(INFER, "missing.jpg")
    assert (bad.returncode, bad.stdout) == (1, b"")
    assert bad.stderr == b"Error: cannot read picture 'missing.jpg': there is no such file or folder\n"
    assert run_process(INFER).returncode == 2


@pytest.mark.usefixtures("use_tiny")
def test_broken_metadata_is_not_worth_a_warning(picture: Path) -> None:
    stream = io.BytesIO()
    with Image.open(picture) as image:
        image.save(stream, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    result = run_process(INFER, "-", stdin=stream.getvalue())
    assert (result.returncode, result.stderr) == (0, b"")


@pytest.mark.usefixtures("use_tiny")
@pytest.mark.parametrize("many", [False, True])
def test_an_output_that_is_full_is_one_line(many: bool, picture: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("caption\nbright\n")
    arguments: list[str | Path] = ["--input", tmp_path / "rows.csv"] if many else [picture, "bright"]
    # The command's stdout becomes that device.
    code = "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1); " + INFER
    result = run_process(code, *arguments)
    assert result.returncode == 1
    expected = b"Error: cannot write the output: No space left on device; make room, or choose another place\n"
    assert result.stderr == expected


@pytest.mark.usefixtures("use_tiny")
def test_a_truncated_picture_is_an_error_unless_it_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "cut.bmp"
    Image.new("RGB", (6, 8), "red").save(path)
    path.write_bytes(path.read_bytes()[:-8])
    (tmp_path / "rows.csv").write_text("image,caption\ncut.bmp,bright\n")
    batch = ["--input", str(tmp_path / "rows.csv")]
    refused = [run_infer(path, "bright"), run_infer(*batch)]
    assert [result.exit_code for result in refused] == [1, 1]
    assert all("image file is truncated" in result.stderr for result in refused)
    allowed = [
        run_infer(path, "bright", "--format", "jsonl", "--allow-truncated"),
        run_infer(*batch, "--allow-truncated"),
    ]
    assert [json.loads(result.stdout)["labels"] for result in allowed] == [["red"], ["red"]]


@pytest.mark.usefixtures("use_tiny")
def test_a_reader_that_went_away_is_met_with_silence(picture: Path) -> None:
    # The command's stdout becomes a pipe whose reading end is closed.
    code = "import os; r, w = os.pipe(); os.close(r); os.dup2(w, 1); " + INFER
    result = run_process(code, picture)
    assert result.returncode == 1
    assert result.stderr == b""


# --- mlic-bench


@pytest.mark.usefixtures("use_tiny", "no_backends")
def test_bench_prints_a_table_and_its_notes_on_stderr() -> None:
    result = CliRunner().invoke(bench, ["--runs", "2", "--warmup", "1", "--threads", "1"])
    assert result.exit_code == 0
    assert "model      tiny@1.0.0, fp32, provider cpu\n" in result.stdout
    assert "picture    synthetic: pseudo-random pixels, seed 0\n" in result.stdout
    assert "mlic-runtime (onnxruntime " in result.stdout
    assert result.stderr == "Note: not compared with pytorch: install mlic-train, which brings it\n"


@pytest.mark.usefixtures("use_tiny", "no_backends")
def test_bench_prints_the_report_as_json(picture: Path) -> None:
    options = ["--image", str(picture), "--caption", "red", "--runs", "2", "--warmup", "1", "--batch-size", "3"]
    result = CliRunner().invoke(bench, [*options, "--precision", "fp16", "--format", "json"])
    report = json.loads(result.stdout)
    assert report["command"] == shlex.join(["bench", *options, "--precision", "fp16", "--format", "json"])
    assert (report["picture"], report["caption"], report["tokens"]) == (str(picture), "red", 1)
    assert (report["precision"], report["batch_size"], report["runs"], report["warmup"]) == ("fp16", 3, 2, 1)
    assert report["timings"][0]["name"] == "mlic-runtime"


@pytest.mark.usefixtures("use_tiny", "no_backends")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--against", "pytorch"], 1),
        (["--image", "missing.jpg"], 1),
        (["--model", "unknown"], 1),
        (["--runs", "0"], 2),
        (["--batch-size", "-1"], 2),
        (["surplus"], 2),
    ],
)
def test_bench_exit_codes(arguments: list[str], code: int) -> None:
    result = CliRunner().invoke(bench, arguments)
    assert result.exit_code == code
    assert result.stdout == ""
    assert "Error: " in result.stderr


def test_a_process_that_ends_with_a_message_leaves_it_to_python(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(prog_name: str, obj: object) -> None:
        raise SystemExit("a message")

    monkeypatch.setattr(cli, "infer", end)
    with pytest.raises(SystemExit, match="a message"):
        cli.main()


# --- mlic-infer: arguments that are easily mistaken


@pytest.mark.usefixtures("use_tiny")
def test_the_picture_is_decoded_while_the_graph_loads(
    use_tiny: None, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = threading.Event()
    decode = Predictor._decode

    def waits(*arguments: Any, **options: Any) -> OpenedGraph:
        assert decoded.wait(60), "the picture waits for the graph"
        return open_graph(*arguments, **options)

    def tells(self: Predictor, source: ImageSource) -> Image.Image:
        decoded.set()
        return decode(self, source)

    monkeypatch.setattr("mlic_runtime.predict.predictor.open_graph", waits)
    monkeypatch.setattr(Predictor, "_decode", tells)
    result = run_infer(picture, "blue")
    assert result.exit_code == 0, result.output


def test_a_damaged_model_is_told_before_a_bad_picture(tiny_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_bytes(b"this is no picture")
    arguments: list[str | Path] = [tmp_path / "text.png", "red", "--model", tiny_copy]
    refused = run_infer(*arguments)
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    assert "text.png" in refused.stderr
    graph = tiny_copy / "model.fp32.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    refused = run_infer(*arguments)
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    assert "model.fp32.onnx has sha256" in refused.stderr


def test_a_second_picture_is_not_read_as_a_caption(picture: Path, tmp_path: Path) -> None:
    second = tmp_path / "Second.JPG"
    second.write_bytes(picture.read_bytes())
    result = run_infer(picture, second)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("Error: ") == 1
    assert f"CAPTION {str(second)!r} is a picture file" in " ".join(result.stderr.split())
    assert "'--input'" in result.stderr


@pytest.mark.usefixtures("use_tiny")
def test_a_second_picture_without_an_ending_is_not_read_as_a_caption_either(picture: Path, tmp_path: Path) -> None:
    second = tmp_path / "IMG_1234"
    second.write_bytes(picture.read_bytes())
    assert f"CAPTION {str(second)!r} is a picture file" in run_infer(picture, second).stderr
    second.write_text("words")
    assert run_infer(picture, second).exit_code == 0


@pytest.mark.usefixtures("use_tiny")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["PICTURE", "PICTURE", "PICTURE"],
            "IMAGE is one picture; found 3, the second is 'PICTURE'. Give several with",
        ),
        (["PICTURE", "A", "dog", "runs"], "CAPTION is one argument; found 3: put it in quotes, 'A dog runs'."),
        (["FOLDER"], "IMAGE 'FOLDER' is a folder: give the pictures of a folder with '--input'."),
        (["*.jpg"], "IMAGE '*.jpg' is not there. Give several with '--input', a folder or a file of rows."),
        (["PICTURE", "--input", "FOLDER"], "'--input' is one folder or one file of rows."),
        (["PICTURE", "PICTURE", "PICTURE", "--input", "FOLDER"], "'--input' is one folder or one file of rows."),
    ],
)
def test_how_to_give_several_pictures_is_said(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    picture.rename("PICTURE")
    Path("FOLDER").mkdir()
    result = run_infer(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Error: {message}" in result.stderr or f"exclude each other: {message}" in result.stderr


@pytest.mark.usefixtures("use_tiny")
def test_a_caption_may_end_like_a_picture(picture: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    for caption in ("a scan of beach.jpg", str(tmp_path / "folder.jpg"), "red " * 1000 + "beach.jpg"):
        assert run_infer(picture, caption).exit_code == 0


@pytest.mark.usefixtures("use_tiny")
@pytest.mark.parametrize(("caption", "found"), [("caf\udce9", "byte 0xE9"), ("\ud83d", "character \\ud83d")])
def test_a_caption_that_is_not_utf8_is_refused(picture: Path, caption: str, found: str) -> None:
    result = run_infer(picture, caption)
    assert result.exit_code == 1
    assert result.stderr == f"Error: the caption: found the {found}, which is not UTF-8; expected UTF-8 text\n"
