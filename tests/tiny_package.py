"""Writes the two model packages that the tests use, so small that their answers can be computed by hand.

    python tests/tiny_package.py tests/data

`tiny` reads a picture and a caption, `tiny_picture` only a picture. Their graphs compute, for the labels red, green
and blue,

    logits = 4 * (mean of pixels / 255 over height and width - 0.5) + mean of EMBEDDING over the caption's tokens

where a caption without tokens adds nothing. `tiny` has the graph twice, as fp32 and with its embedding in fp16.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import tokenizers
from onnx import TensorProto, helper, numpy_helper

from mlic_runtime.package.manifest import (
    CARD_NAME,
    MANIFEST_NAME,
    TOKENIZER_NAME,
    FileSpec,
    ImageSpec,
    LabelSpec,
    Manifest,
    TextSpec,
    dump_manifest,
)

LABELS = (LabelSpec("red", 0.5), LabelSpec("green", 0.6), LabelSpec("blue", 0.4))
IMAGE = ImageSpec(height=6, width=8)  # not square, so that a mix-up of the sides shows
TEXT = TextSpec(max_length=6, vocab_size=7, pad_id=0)
VOCABULARY = {"[PAD]": 0, "[UNK]": 1, "red": 2, "green": 3, "blue": 4, "bright": 5, "no": 6}
EMBEDDING = np.array(  # (vocabulary, label); [PAD] is far off, so that a mask that is ignored shows
    [[64, 64, 64], [0, 0, 0], [3, 0, 0], [0, 3, 0], [0, 0, 3], [1, 1, 1], [-4, -4, -4]], dtype=np.float32
)


def picture_nodes(output: str) -> list[onnx.NodeProto]:
    """pixels (B, H, W, 3) -> 4 * (mean colour - 0.5), float32 (B, 3)."""
    return [
        helper.make_node("Cast", ["pixels"], ["colours"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["colours"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Mul", ["mean", "scale"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "offset"], [output]),
    ]


def caption_nodes(output: str) -> list[onnx.NodeProto]:
    """input_ids and attention_mask (B, T) -> mean embedding of the tokens that count, float32 (B, 3)."""
    return [
        helper.make_node("Cast", ["embedding"], ["table"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"], axis=0),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["weights"]),
        helper.make_node("Mul", ["embedded", "weights"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "tokens"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "tokens"], ["count"], keepdims=1),
        helper.make_node("Max", ["count", "one"], ["divisor"]),
        helper.make_node("Div", ["sum", "divisor"], [output]),
    ]


def make_graph(embedding: np.ndarray | None) -> bytes:
    """The ONNX graph; without an embedding it reads no caption."""
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["B", IMAGE.height, IMAGE.width, 3])]
    constants: dict[str, np.ndarray] = {"scale": np.array([4 / 255], np.float32), "offset": np.array([2], np.float32)}
    if embedding is None:
        nodes = picture_nodes("logits")
    else:
        nodes = [*picture_nodes("seen"), *caption_nodes("read"), helper.make_node("Add", ["seen", "read"], ["logits"])]
        inputs += [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["B", "T"])
            for name in ("input_ids", "attention_mask")
        ]
        constants |= {
            "embedding": embedding,
            "last": np.array([2], np.int64),
            "tokens": np.array([1], np.int64),
            "one": np.array([1], np.float32),
        }
    graph = helper.make_graph(
        nodes,
        "tiny",
        inputs,
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", len(LABELS)])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="mlic")
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def make_tokenizer() -> bytes:
    """Lower-case words; a word that is not in VOCABULARY is [UNK]."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return (json.dumps(json.loads(tokenizer.to_str()), indent=1, sort_keys=True) + "\n").encode()


def write_package(folder: Path, name: str, text: TextSpec | None, graphs: dict[str, bytes]) -> None:
    """Write one model package; `graphs` is {precision: bytes}."""
    contents = {f"model.{precision}.onnx": (graph, precision) for precision, graph in graphs.items()}
    files: dict[str, tuple[bytes, str | None]] = {**contents}
    if text is not None:
        files[TOKENIZER_NAME] = (make_tokenizer(), None)
    files[CARD_NAME] = (f"# {name}\n\nWritten by tests/tiny_package.py, for tests only.\n".encode(), None)
    manifest = Manifest(
        name=name,
        version="1.0.0",
        labels=LABELS,
        image=IMAGE,
        text=text,
        files={
            file_name: FileSpec(hashlib.sha256(data).hexdigest(), len(data), precision)
            for file_name, (data, precision) in files.items()
        },
        provenance={"note": "made by hand, not trained"},
    )
    folder.mkdir(parents=True, exist_ok=True)
    for file_name, (data, _) in files.items():
        (folder / file_name).write_bytes(data)
    (folder / MANIFEST_NAME).write_bytes(dump_manifest(manifest).encode())


def main(output: Path) -> None:
    """Write both packages below `output`."""
    graphs = {"fp32": make_graph(EMBEDDING), "fp16": make_graph(EMBEDDING.astype(np.float16))}
    write_package(output / "tiny", "tiny", TEXT, graphs)
    write_package(output / "tiny_picture", "tiny-picture", None, {"fp32": make_graph(None)})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
