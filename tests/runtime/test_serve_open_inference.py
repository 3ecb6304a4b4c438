"""The Open Inference Protocol."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlic_runtime.predict.predictor import Predictor
from tests.serving import base64_of, client_of, picture

RED = picture((255, 0, 0))


@pytest.fixture
def predictor(tiny: Path) -> Predictor:
    return Predictor.load(tiny, threads=1)


def ask(predictor: Predictor, method: str, path: str, body: object = None) -> httpx.Response:
    async def run() -> httpx.Response:
        async with client_of(predictor) as client:
            return await client.request(method, path.replace("NAME", predictor.manifest.name), json=body)

    return asyncio.run(run())


def tensor(name: str, data: object, **changes: Any) -> dict[str, Any]:
    length = len(data) if isinstance(data, list) else 1
    return {"name": name, "datatype": "BYTES", "shape": [length], "data": data, **changes}


def test_health_and_metadata(predictor: Predictor) -> None:
    assert ask(predictor, "GET", "/v2/health/live").json() == {"live": True}
    assert ask(predictor, "GET", "/v2/health/ready").json() == {"ready": True}
    assert ask(predictor, "GET", "/v2").json()["name"] == "mlic-serve"
    metadata = ask(predictor, "GET", "/v2/models/NAME").json()
    assert (metadata["name"], metadata["versions"]) == (predictor.manifest.name, [predictor.manifest.version])
    assert [one["name"] for one in metadata["inputs"]] == ["picture", "caption"]
    assert {one["name"]: one["shape"] for one in metadata["outputs"]} == {
        "probabilities": [-1, 3],
        "predicted": [-1, 3],
        "labels": [3],
    }
    assert ask(predictor, "GET", "/v2/models/NAME/ready").json()["ready"] is True
    assert ask(predictor, "GET", f"/v2/models/NAME/versions/{predictor.manifest.version}/ready").status_code == 200


def test_another_model_or_version_is_not_there(predictor: Predictor) -> None:
    for path in ("/v2/models/other", "/v2/models/other/ready", "/v2/models/NAME/versions/9/ready"):
        answer = ask(predictor, "GET", path)
        assert (answer.status_code, answer.json()["type"]) == (404, "NotFoundError")
        assert predictor.manifest.title in answer.json()["error"]


@pytest.mark.parametrize("shape", [[3], [3, 1]])
def test_infer_gives_what_predict_gives(predictor: Predictor, shape: list[int]) -> None:
    pictures, captions = [RED, None, RED], ["blue", "green", None]
    body = {
        "id": "42",
        "inputs": [
            tensor("picture", [base64_of(one) if one else "" for one in pictures], shape=shape),
            tensor("caption", [caption or "" for caption in captions], parameters={"content_type": "str"}),
        ],
    }
    answer = ask(predictor, "POST", "/v2/models/NAME/infer", body).json()
    assert (answer["model_name"], answer["id"]) == (predictor.manifest.name, "42")
    outputs = {one["name"]: one for one in answer["outputs"]}
    expected = predictor.predict_many(pictures, captions)
    assert outputs["labels"]["data"] == list(predictor.labels)
    assert outputs["probabilities"]["shape"] == [3, 3]
    assert outputs["probabilities"]["data"] == [
        one.probabilities[name] for one in expected for name in predictor.labels
    ]
    assert outputs["predicted"]["data"] == [name in one.labels for one in expected for name in predictor.labels]


def test_only_the_outputs_that_are_asked_for(predictor: Predictor) -> None:
    body = {"inputs": [tensor("caption", ["red"])], "outputs": [{"name": "predicted"}]}
    assert [one["name"] for one in ask(predictor, "POST", "/v2/models/NAME/infer", body).json()["outputs"]] == [
        "predicted"
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "request.inputs is missing"),
        ({"inputs": []}, "found no input"),
        ({"inputs": [tensor("pixels", ["red"])]}, "the input 'pixels'; this model has: picture, caption"),
        ({"inputs": [tensor("caption", ["red"]), tensor("caption", ["red"])]}, "twice the input 'caption'"),
        ({"inputs": [tensor("caption", [1])]}, "list of texts"),
        ({"inputs": [tensor("caption", "red")]}, "list of texts"),
        ({"inputs": [tensor("caption", ["red"], datatype="FP32")]}, "datatype BYTES, found 'FP32'"),
        ({"inputs": [tensor("caption", ["red"], shape=[9])]}, "expected the shape [1], found [9]"),
        ({"inputs": [tensor("caption", ["red"], shape=[10**15])]}, "expected the shape [1]"),
        ({"inputs": [tensor("caption", ["red"], shape=[-1])]}, "expected the shape [1]"),
        ({"inputs": [tensor("caption", [])]}, "found no input"),
        ({"inputs": [tensor("caption", ["red"]), tensor("picture", ["", ""])]}, "different lengths"),
        ({"inputs": [tensor("picture", ["%"])]}, "picture[0] must be the bytes of a picture file in base64"),
        ({"inputs": [tensor("picture", [base64_of(b"no")])]}, "input 0: cannot read picture"),
        ({"inputs": [tensor("caption", [""])]}, "neither a picture nor a caption"),
        ({"inputs": [tensor("caption", ["red"])], "outputs": [{"name": "logits"}]}, "the output 'logits'"),
        ({"inputs": [tensor("caption", ["red"])], "more": 1}, "unknown key request.more"),
        ([], "must hold a JSON object"),
    ],
)
def test_what_is_wrong_is_said(predictor: Predictor, body: object, message: str) -> None:
    answer = ask(predictor, "POST", "/v2/models/NAME/infer", body)
    assert answer.status_code == 400
    assert set(answer.json()) == {"error", "type"}
    assert message in answer.json()["error"]


def test_too_many_are_too_many(predictor: Predictor) -> None:
    answer = ask(predictor, "POST", "/v2/models/NAME/infer", {"inputs": [tensor("caption", ["red"] * 65)]})
    assert (answer.status_code, answer.json()["type"]) == (413, "RequestTooLargeError")


def test_a_model_of_pictures_alone_has_no_caption(tiny_picture: Path) -> None:
    predictor = Predictor.load(tiny_picture)
    assert [one["name"] for one in ask(predictor, "GET", "/v2/models/NAME").json()["inputs"]] == ["picture"]
    answer = ask(predictor, "POST", "/v2/models/NAME/infer", {"inputs": [tensor("picture", [base64_of(RED)])]}).json()
    expected = predictor.predict(RED)
    assert answer["outputs"][0]["data"] == [expected.probabilities[name] for name in predictor.labels]
