"""What `--layout triton` writes, read as Triton reads it: as the protobuf message `inference.ModelConfig`.

MESSAGES repeats, of NVIDIA's protobuf/model_config.proto (triton-inference-server/common, BSD-3-Clause), the names,
numbers and types of the fields that a configuration for ONNX Runtime may need; any other field is a parse error here.
The package that carries the compiled message, tritonclient[grpc], wants older protobuf and ml-dtypes than onnx does.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from mlic_runtime.graph.session import create_session
from mlic_runtime.package.manifest import LabelSpec
from mlic_runtime.package.model_package import load_package
from mlic_train.cli.export import export
from mlic_train.config import DataOptions
from mlic_train.data.splits import load_splits
from mlic_train.errors import ExportError
from mlic_train.exporting.package import ExportOptions, build_package, export_package
from mlic_train.exporting.parity import SHAPES
from mlic_train.exporting.triton import CONFIG_NAME, config_pbtxt, export_triton
from mlic_train.runs.folder import TrainedModel

Field = descriptor_pb2.FieldDescriptorProto
TEXT, INT32, INT64, UINT64, BOOL = (
    Field.TYPE_STRING,
    Field.TYPE_INT32,
    Field.TYPE_INT64,
    Field.TYPE_UINT64,
    Field.TYPE_BOOL,
)
ENUMS = {
    "DataType": [
        "INVALID",
        "BOOL",
        "UINT8",
        "UINT16",
        "UINT32",
        "UINT64",
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "FP16",
        "FP32",
        "FP64",
        "STRING",
        "BF16",
    ],
    "Kind": ["AUTO", "GPU", "CPU", "MODEL"],
}
# message -> (field, number, type or message or enum, repeated)
MESSAGES: dict[str, list[tuple[str, int, Any, bool]]] = {
    "ModelTensorReshape": [("shape", 1, INT64, True)],
    "ModelInput": [
        ("name", 1, TEXT, False),
        ("data_type", 2, "DataType", False),
        ("dims", 4, INT64, True),
        ("reshape", 5, "ModelTensorReshape", False),
        ("allow_ragged_batch", 7, BOOL, False),
        ("optional", 8, BOOL, False),
    ],
    "ModelOutput": [
        ("name", 1, TEXT, False),
        ("data_type", 2, "DataType", False),
        ("dims", 3, INT64, True),
        ("label_filename", 4, TEXT, False),
        ("reshape", 5, "ModelTensorReshape", False),
    ],
    "ModelInstanceGroup": [
        ("name", 1, TEXT, False),
        ("count", 2, INT32, False),
        ("gpus", 3, INT32, True),
        ("kind", 4, "Kind", False),
    ],
    "ModelDynamicBatching": [
        ("preferred_batch_size", 1, INT32, True),
        ("max_queue_delay_microseconds", 2, UINT64, False),
        ("preserve_ordering", 3, BOOL, False),
    ],
    "ModelParameter": [("string_value", 1, TEXT, False)],
    "ModelConfig": [
        ("name", 1, TEXT, False),
        ("platform", 2, TEXT, False),
        ("max_batch_size", 4, INT32, False),
        ("input", 5, "ModelInput", True),
        ("output", 6, "ModelOutput", True),
        ("instance_group", 7, "ModelInstanceGroup", True),
        ("default_model_filename", 8, TEXT, False),
        ("dynamic_batching", 11, "ModelDynamicBatching", False),
        ("parameters", 14, "ModelConfig.ParametersEntry", True),
        ("backend", 17, TEXT, False),
    ],
}


def model_config() -> Any:
    """An empty message `inference.ModelConfig`."""
    file = descriptor_pb2.FileDescriptorProto(name="model_config.proto", package="inference", syntax="proto3")
    for name, values in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=f"{'TYPE' if name == 'DataType' else 'KIND'}_{value}", number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            added = message.field.add(name=field, number=number)
            added.label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
            if isinstance(kind, str):
                added.type_name = f".inference.{kind}"
                added.type = Field.TYPE_ENUM if kind in ENUMS else Field.TYPE_MESSAGE
            else:
                added.type = kind
    entry = file.message_type[-1].nested_type.add(name="ParametersEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=TEXT, label=Field.LABEL_OPTIONAL)
    value = entry.field.add(name="value", number=2, type=Field.TYPE_MESSAGE, label=Field.LABEL_OPTIONAL)
    value.type_name = ".inference.ModelParameter"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))()


def parse(text: str) -> Any:
    return text_format.Parse(text, model_config())


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def tensors(values: Any) -> list[tuple[str, str, list[int]]]:
    names = {number: f"TYPE_{name}" for number, name in enumerate(ENUMS["DataType"])}
    return [(value.name, names[value.data_type], list(value.dims)) for value in values]


def test_the_folder_has_the_form_that_triton_documents(trained: TrainedModel, tmp_path: Path) -> None:
    manifest = export_triton(trained, tmp_path / "repository")
    assert [path.name for path in (tmp_path / "repository").iterdir()] == ["hybrid"]
    folder = tmp_path / "repository" / "hybrid"
    assert listing(folder) == ["1/model.onnx", "README.md", "config.pbtxt", "labels.txt", "tokenizer.json"]
    assert (folder / "labels.txt").read_text() == "red\ngreen\nblue\n"
    assert (folder / "tokenizer.json").read_bytes() == trained.tokenizer
    assert manifest == export_package(trained, tmp_path / "package")
    graph = load_package(tmp_path / "package").read_graph("fp32")
    assert (folder / "1" / "model.onnx").read_bytes() == graph


def test_the_configuration_describes_the_graph(trained: TrainedModel, tmp_path: Path) -> None:
    export_triton(trained, tmp_path)
    config = parse((tmp_path / "hybrid" / CONFIG_NAME).read_text("utf-8"))
    assert (config.name, config.platform, config.backend) == ("hybrid", "onnxruntime_onnx", "onnxruntime")
    assert config.max_batch_size == max(batch for batch, _ in SHAPES)
    assert tensors(config.input) == [
        ("pixels", "TYPE_UINT8", [16, 16, 3]),
        ("input_ids", "TYPE_INT64", [-1]),
        ("attention_mask", "TYPE_INT64", [-1]),
    ]
    height, width = trained.model.grid
    assert tensors(config.output) == [
        ("logits", "TYPE_FP32", [3]),
        ("picture_evidence", "TYPE_FP32", [3, height, width]),
        ("caption_evidence", "TYPE_FP32", [3, -1]),
    ]
    assert [output.label_filename for output in config.output] == ["labels.txt", "", ""]
    assert config.HasField("dynamic_batching")
    assert [(group.count, group.kind) for group in config.instance_group] == [(1, 0)]


def test_a_client_finds_thresholds_and_preprocessing_in_the_parameters(trained: TrainedModel, tmp_path: Path) -> None:
    manifest = export_triton(trained, tmp_path, ExportOptions(version="1.2.3"))
    config = parse((tmp_path / "hybrid" / CONFIG_NAME).read_text("utf-8"))
    found = {key: value.string_value for key, value in config.parameters.items()}
    assert found.keys() == {"model_version", "checkpoint_sha256", "thresholds", "image", "text"}
    assert found["model_version"] == "1.2.3"
    assert found["checkpoint_sha256"] == manifest.provenance["checkpoint_sha256"]
    assert json.loads(found["thresholds"]) == {"red": 0.1, "green": 0.2, "blue": 0.3}
    assert json.loads(found["image"]) == dataclasses.asdict(manifest.image)
    assert manifest.text is not None
    assert json.loads(found["text"]) == dataclasses.asdict(manifest.text)


def test_a_model_without_captions_has_one_input(cnn: TrainedModel, tmp_path: Path) -> None:
    export_triton(cnn, tmp_path / "repository")
    folder = tmp_path / "repository" / "cnn"
    assert listing(folder) == ["1/model.onnx", "README.md", "config.pbtxt", "labels.txt"]
    config = parse((folder / CONFIG_NAME).read_text("utf-8"))
    assert tensors(config.input) == [("pixels", "TYPE_UINT8", [16, 16, 3])]
    assert "text" not in config.parameters


def test_names_and_sides_come_from_the_graph(trained: TrainedModel) -> None:
    manifest, files = build_package(trained, ExportOptions(version="1.0.0"), splits=None, log=lambda _: None)
    model = onnx.load_from_string(files["model.fp32.onnx"])
    model.graph.input[0].name = "picture"
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 48
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "L"
    config = parse(config_pbtxt(manifest, model.SerializeToString()))
    assert tensors(config.input)[0] == ("picture", "TYPE_UINT8", [48, 16, 3])
    assert tensors(config.output)[0] == ("logits", "TYPE_FP32", [-1])


def test_any_label_survives_the_text_format(trained: TrainedModel) -> None:
    manifest, files = build_package(trained, ExportOptions(version="1.0.0"), splits=None, log=lambda _: None)
    names = ('a "quoted" label', "back\\slash \\n", "Füße 👣 'x' # {}")
    manifest = dataclasses.replace(manifest, labels=tuple(LabelSpec(name, 0.25) for name in names))
    config = parse(config_pbtxt(manifest, files["model.fp32.onnx"]))
    assert json.loads(config.parameters["thresholds"].string_value) == dict.fromkeys(names, 0.25)


def test_a_batch_of_the_largest_size_runs(trained: TrainedModel, tmp_path: Path) -> None:
    export_triton(trained, tmp_path)
    config = parse((tmp_path / "hybrid" / CONFIG_NAME).read_text("utf-8"))
    session = create_session((tmp_path / "hybrid" / "1" / "model.onnx").read_bytes())
    rows = config.max_batch_size
    tokens = np.ones((rows, 4), np.int64)
    logits = session.run(np.zeros((rows, *config.input[0].dims), np.uint8), tokens, tokens)
    assert logits.shape == (rows, *config.output[0].dims)


def test_exporting_again_replaces_the_model_and_nothing_else(trained: TrainedModel, tmp_path: Path) -> None:
    (tmp_path / "other" / "1").mkdir(parents=True)
    (tmp_path / "other" / "1" / "model.onnx").write_bytes(b"mine")
    export_triton(trained, tmp_path, ExportOptions(version="1.0.0"))
    export_triton(trained, tmp_path, ExportOptions(version="2.0.0"))
    assert '"2.0.0"' in (tmp_path / "hybrid" / CONFIG_NAME).read_text("utf-8")
    assert (tmp_path / "other" / "1" / "model.onnx").read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hybrid", "other", "run"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hybrid/2/model.onnx", "hybrid holds '2', which this export did not write; choose another --output"),
        ("hybrid/mine.jpg", "hybrid holds 'mine.jpg', which this export did not write"),
        ("hybrid/labels.txt", "hybrid is no folder with config.pbtxt, which this export did not write"),
        ("hybrid", "hybrid is no folder with config.pbtxt, which this export did not write"),
    ],
)
def test_a_folder_that_is_no_such_model_is_not_replaced(
    trained: TrainedModel, tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("precious")
    with pytest.raises(ExportError) as error:
        export_triton(trained, tmp_path)
    assert message in str(error.value)
    assert (tmp_path / name).read_text() == "precious"


def test_a_graph_that_disagrees_leaves_the_old_model(
    trained: TrainedModel, tmp_path: Path, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_triton(trained, tmp_path)
    before = {name: (tmp_path / "hybrid" / name).read_bytes() for name in listing(tmp_path / "hybrid")}
    monkeypatch.setattr("mlic_train.exporting.package.check_rows", refuse)
    with pytest.raises(ExportError, match="on real rows"):
        export_triton(trained, tmp_path, splits=load_splits(DataOptions(colours)))
    assert {name: (tmp_path / "hybrid" / name).read_bytes() for name in listing(tmp_path / "hybrid")} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hybrid", "run"]


def refuse(*_: object) -> None:
    raise ExportError("parity failed on real rows")


def test_the_command_writes_it_instead_of_a_package(trained: TrainedModel, tmp_path: Path) -> None:
    given = ["--run", str(trained.folder), "--layout", "triton", "--output", str(tmp_path / "models")]
    result = CliRunner().invoke(export, given)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "models" / "hybrid" / CONFIG_NAME).is_file()
    assert result.stdout.splitlines()[-1].endswith("100.000%")
    wrong = CliRunner().invoke(export, [*given, "--wheel"])
    assert wrong.exit_code == 2
    assert "leave --layout triton out" in wrong.stderr
