import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlic_runtime.errors import ManifestError
from mlic_runtime.package.manifest import AgreementSpec, LatencySpec, ParitySpec, dump_manifest, parse_manifest

Edit = Callable[[dict[str, Any]], object]
PARITY = {"rows": 34, "max_abs_difference": 6.2e-06, "equal_decisions": 1.0, "shapes": 6, "atol": 0.0001, "rtol": 0.0}
LATENCY = {"machine": "Some CPU @ 2 GHz", "threads": 2, "runs": 50, "p50_ms": 12.5, "p90_ms": 14.0}


@pytest.fixture
def data(tiny: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((tiny / "manifest.json").read_text("utf-8"))
    return content


def test_reading_and_writing_gives_the_same_bytes(tiny: Path) -> None:
    text = (tiny / "manifest.json").read_text("utf-8")
    assert dump_manifest(parse_manifest(text)) == text


def test_the_precisions_keep_the_order_of_the_files(tiny: Path) -> None:
    manifest = parse_manifest((tiny / "manifest.json").read_bytes())
    assert manifest.precisions == ("fp32", "fp16")
    assert manifest.graph_name("fp16") == "model.fp16.onnx"
    with pytest.raises(ManifestError, match="no int8 graph; it has: fp32, fp16"):
        manifest.graph_name("int8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(schema_version=2), "schema_version 2"),
        (lambda m: m.update(schema_version=1.0), "schema_version must be int"),
        (lambda m: m.update(schema_version=True), "schema_version True"),
        (lambda m: m.pop("schema_version"), "schema_version None"),
        (lambda m: m.update(surprise=1), "unknown key manifest.surprise"),
        (lambda m: m["image"].update(mean=[0]), "unknown key manifest.image.mean"),
        (lambda m: m.pop("labels"), "manifest.labels is missing"),
        (lambda m: m["labels"][1].pop("threshold"), r"manifest.labels\[1\].threshold is missing"),
        (lambda m: m.update(labels=[]), "at least one label"),
        (lambda m: m.update(labels={"red": 0.5}), "manifest.labels must be a list"),
        (lambda m: m["labels"].append(m["labels"][0]), "unique names, found 'red'"),
        (lambda m: m["labels"][0].update(name=" "), "printable characters"),
        (lambda m: m["labels"][0].update(name="a\nb"), "printable characters"),
        (lambda m: m["labels"][0].update(name="\ud800"), "printable characters"),
        (lambda m: m["labels"][0].update(threshold=1.5), r"the threshold of 'red' must be in \[0, 1\], found 1.5"),
        (lambda m: m["labels"][0].update(threshold=-0.1), "the threshold of 'red'"),
        (lambda m: m["labels"][0].update(threshold="0.5"), "threshold must be float"),
        (lambda m: m["labels"][0].update(threshold=True), "threshold must be float"),
        (lambda m: m["labels"][0].update(threshold=float("nan")), "NaN is not a number in JSON"),
        (lambda m: m["labels"][0].update(threshold=float("inf")), "Infinity is not a number in JSON"),
        (lambda m: m.update(name="../tiny"), "manifest.name must be"),
        (lambda m: m.update(version=""), "manifest.version must be"),
        (lambda m: m["image"].update(height=0), "1 to 4096 pixels"),
        (lambda m: m["image"].update(width=5000), "1 to 4096 pixels"),
        (lambda m: m["image"].update(height=6.0), "height must be int"),
        (lambda m: m["image"].update(interpolation="nearest"), "image.interpolation must be one of"),
        (lambda m: m["image"].update(resize="pad"), "image.resize must be one of"),
        (lambda m: m["text"].update(max_length=0), "text.max_length"),
        (lambda m: m["text"].update(pad_id=7), "text.pad_id"),
        (lambda m: m.update(text=None), "manifest.text must be set exactly when tokenizer.json is listed"),
        (lambda m: m["files"].pop("tokenizer.json"), "manifest.text must be set exactly when"),
        (lambda m: m.update(files={}), "at least one graph"),
        (lambda m: m["files"]["model.fp16.onnx"].update(precision="fp32"), "one graph per precision"),
        (lambda m: m["files"]["model.fp16.onnx"].update(precision="fp8"), "files.model.fp16.onnx must be"),
        (lambda m: m["files"]["model.fp16.onnx"].update(precision=None), "files.model.fp16.onnx must be"),
        (lambda m: m["files"]["tokenizer.json"].update(precision="int8"), "files.tokenizer.json must be"),
        (lambda m: m["files"].update({"manifest.json": m["files"]["README.md"]}), "files.manifest.json must be"),
        (lambda m: m["files"].update({"../evil.onnx": m["files"]["README.md"]}), "plain file names"),
        (lambda m: m["files"].update({"a/b.onnx": m["files"]["README.md"]}), "plain file names"),
        (lambda m: m["files"].update({"/etc/passwd": m["files"]["README.md"]}), "plain file names"),
        (lambda m: m["files"]["README.md"].update(sha256="ABC"), "64 lower-case hexadecimal digits"),
        (lambda m: m["files"]["README.md"].update(bytes=-1), "0 or more"),
        (lambda m: m["provenance"].update(seed=[1]), "provenance.seed must be str or float or int"),
        (lambda m: m["parity"].update(fp32={**PARITY, "val": {}}), "unknown key manifest.parity.fp32.val"),
        (lambda m: m["parity"].update(fp32={**PARITY, "splits": {"val": {}}}), "splits.val.equal_decisions is missing"),
    ],
)
def test_a_manifest_that_breaks_a_rule_is_refused_by_name(data: dict[str, Any], change: Edit, message: str) -> None:
    change(data)
    with pytest.raises(ManifestError, match=message):
        parse_manifest(json.dumps(data))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe\xfd", "not valid JSON"),
        (b"[]", "must hold a JSON object, found list"),
        (b'{"name": 1, "name": 2}', "duplicate key 'name'"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_what_is_not_a_manifest_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        parse_manifest(text)


def test_a_number_too_large_for_a_float_is_refused(data: dict[str, Any]) -> None:
    text = json.dumps(data).replace('"threshold": 0.5', '"threshold": 1e999')
    with pytest.raises(ManifestError, match="threshold must be float, found inf"):
        parse_manifest(text)


def test_a_parity_without_splits_is_read(data: dict[str, Any]) -> None:
    """Packages that were exported before real rows were compared have none."""
    data["parity"] = {"fp32": PARITY}
    manifest = parse_manifest(json.dumps(data))
    assert manifest.parity["fp32"] == ParitySpec(34, 6.2e-06, 1.0, shapes=6, atol=1e-4, rtol=0.0, splits={})
    assert parse_manifest(dump_manifest(manifest)) == manifest


def test_a_parity_says_how_far_the_real_rows_are(data: dict[str, Any]) -> None:
    real = {"rows": 492, "max_abs_difference": 7.5e-06, "equal_decisions": 1.0}
    data["parity"] = {"fp32": {**PARITY, "splits": {"val": real}}}
    manifest = parse_manifest(json.dumps(data))
    assert manifest.parity["fp32"].splits == {"val": AgreementSpec(492, 7.5e-06, 1.0)}
    assert parse_manifest(dump_manifest(manifest)) == manifest


# --- speed


def with_speed(data: dict[str, Any]) -> None:
    data["latency"] = {"fp32": {"cpu": {**LATENCY}, "cuda": {**LATENCY}}, "fp16": {"cpu": {**LATENCY}}}
    data["recommended"] = {"cpu": "fp16"}


def test_a_manifest_without_latency_and_recommendation_is_read(data: dict[str, Any]) -> None:
    """Packages that were exported before have neither."""
    del data["latency"], data["recommended"]
    manifest = parse_manifest(json.dumps(data))
    assert (manifest.latency, manifest.recommended) == ({}, {})
    assert list(json.loads(dump_manifest(manifest)))[-5:] == [
        "metrics",
        "parity",
        "latency",
        "recommended",
        "provenance",
    ]


def test_latency_and_recommendation_are_kept(data: dict[str, Any]) -> None:
    with_speed(data)
    manifest = parse_manifest(json.dumps(data))
    assert manifest.latency["fp32"]["cuda"] == LatencySpec("Some CPU @ 2 GHz", 2, 50, 12.5, 14.0)
    assert manifest.recommended == {"cpu": "fp16"}
    assert parse_manifest(dump_manifest(manifest)) == manifest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m["latency"].update(int8={}),
            r"a precision in manifest.latency must be one .*\(fp32, fp16\).*'int8'",
        ),
        (lambda m: m["latency"]["fp32"].update(gpu=LATENCY), "a provider in manifest.latency.fp32 must be .*'gpu'"),
        (lambda m: m["latency"]["fp32"]["cpu"].update(machine=""), "latency.fp32.cpu.machine must be"),
        (lambda m: m["latency"]["fp32"]["cpu"].update(machine="a\nb"), "latency.fp32.cpu.machine must be"),
        (
            lambda m: m["latency"]["fp32"]["cpu"].update(threads=0),
            "latency.fp32.cpu.threads must be 1 or more, found 0",
        ),
        (lambda m: m["latency"]["fp32"]["cpu"].update(runs=0), "latency.fp32.cpu.runs must be 1 or more, found 0"),
        (lambda m: m["latency"]["fp32"]["cpu"].update(p50_ms=0), r"latency.fp32.cpu must be 0 < .*found \(0.0, 14.0\)"),
        (lambda m: m["latency"]["fp32"]["cpu"].update(p50_ms=15), r"latency.fp32.cpu must be 0 < p50_ms <= p90_ms"),
        (lambda m: m["latency"]["fp32"]["cpu"].update(p99_ms=15), "unknown key manifest.latency.fp32.cpu.p99_ms"),
        (lambda m: m["latency"]["fp32"]["cpu"].pop("runs"), "manifest.latency.fp32.cpu.runs is missing"),
        (lambda m: m.update(latency=None), "manifest.latency must be an object"),
        (lambda m: m["recommended"].update(cpu="int8"), r"recommended.cpu must be one .*\(fp32, fp16\).*'int8'"),
        (lambda m: m["recommended"].update(gpu="fp32"), "a provider in manifest.recommended must be .*'gpu'"),
        (lambda m: m["recommended"].update(cpu=None), "manifest.recommended.cpu must be str"),
    ],
)
def test_speeds_that_cannot_be_are_refused(data: dict[str, Any], change: Edit, message: str) -> None:
    with_speed(data)
    change(data)
    with pytest.raises(ManifestError, match=message):
        parse_manifest(json.dumps(data))
