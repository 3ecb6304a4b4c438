import asyncio
import json
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlic_runtime.base.arrays import Pixels
from mlic_runtime.base.page_files import PAGE_FILES, read_page_files
from mlic_runtime.predict.prediction import Prediction, PredictionOptions
from mlic_runtime.predict.predictor import Predictor
from mlic_runtime.rows.row import Row
from mlic_runtime.serve.application import create_application
from mlic_runtime.serve.settings import ServeSettings
from tests.serving import base64_of, client_of, picture, pictures

ROOT = Path(__file__).parents[2]
RED = picture((255, 0, 0))


@pytest.fixture
def predictor(tiny: Path) -> Predictor:
    return Predictor.load(tiny, threads=1)


def ask(predictor: Predictor, method: str, path: str, settings: "dict[str, Any] | None" = None, **request: Any) -> Any:
    """One request to a server of its own."""

    async def run() -> httpx.Response:
        async with client_of(predictor, **(settings or {})) as client:
            return await client.request(method, path, **request)

    return asyncio.run(run())


def test_a_form_gives_what_predict_gives(predictor: Predictor) -> None:
    answer = ask(predictor, "POST", "/v1/predict", files={"image": ("a.png", RED)}, data={"caption": "no blue"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == predictor.predict(RED, "no blue").to_dict()


def test_json_gives_what_predict_gives(predictor: Predictor) -> None:
    answer = ask(predictor, "POST", "/v1/predict", json={"image": base64_of(RED), "caption": "green"})
    assert answer.json() == predictor.predict(RED, "green").to_dict()


@pytest.mark.parametrize("given", [{"image": base64_of(RED)}, {"caption": "blue"}, {"image": None, "caption": "red"}])
def test_one_of_picture_and_caption_is_enough(predictor: Predictor, given: dict[str, str]) -> None:
    expected = predictor.predict(RED if given.get("image") else None, given.get("caption"))
    assert ask(predictor, "POST", "/v1/predict", json=given).json() == expected.to_dict()


def test_the_options_are_those_of_predict(predictor: Predictor) -> None:
    options = {"threshold": 0.9999, "top_k": 2, "at_least_one": True}
    expected = predictor.predict(RED, None, **options).to_dict()  # type: ignore[arg-type]
    assert len(expected["labels"]) == 1
    assert ask(predictor, "POST", "/v1/predict", json={"image": base64_of(RED), **options}).json() == expected
    fields = {"threshold": "0.9999", "top_k": "2", "at_least_one": "on"}
    assert ask(predictor, "POST", "/v1/predict", files={"image": RED}, data=fields).json() == expected


def test_many_have_a_result_each_and_a_bad_one_its_error(predictor: Predictor) -> None:
    inputs = [
        {"image": base64_of(RED), "caption": "blue"},
        {"image": base64_of(b"no picture")},
        {"image": "%%%"},
        {},
        {"caption": "green"},
    ]
    answer = ask(predictor, "POST", "/v1/predict", json={"inputs": inputs})
    assert answer.status_code == 200
    first, *bad, last = answer.json()["predictions"]
    assert first == predictor.predict(RED, "blue").to_dict()
    assert last == predictor.predict(None, "green").to_dict()
    assert [error["type"] for error in bad] == ["ImageError", "RequestError", "InputError"]
    assert all(set(error) == {"error", "type"} for error in bad)


def test_a_list_of_one_is_answered_with_a_list(predictor: Predictor) -> None:
    answer = ask(predictor, "POST", "/v1/predict", json={"inputs": [{"caption": "red"}]}).json()
    assert answer == {"predictions": [predictor.predict(None, "red").to_dict()]}


def test_a_form_may_have_many_pictures(predictor: Predictor) -> None:
    files = [("image", (f"{index}.png", data)) for index, data in enumerate(pictures(3))]
    answer = ask(predictor, "POST", "/v1/predict", files=files, data={"caption": ["red", "", "blue"]}).json()
    expected = predictor.predict_many(pictures(3), ["red", None, "blue"])
    assert answer == {"predictions": [prediction.to_dict() for prediction in expected]}


@pytest.mark.parametrize("caption", [None, "no blue"])
def test_evidence_is_that_of_predict(predictor: Predictor, caption: str | None) -> None:
    request = {"image": base64_of(RED), "caption": caption, "evidence": True}
    answer = ask(predictor, "POST", "/v1/predict", json=request).json()
    evidence = predictor.predict(RED, caption, evidence=True).evidence
    assert evidence is not None
    assert evidence.picture is not None
    found = answer.pop("evidence")
    assert answer == predictor.predict(RED, caption).to_dict()
    assert (found["method"], found["words"], found["rest"]) == (evidence.method, list(evidence.words), evidence.rest)
    for label in predictor.labels:
        np.testing.assert_array_equal(np.float32(found["picture"][label]), evidence.picture[label])
        if evidence.caption is not None:
            np.testing.assert_array_equal(np.float32(found["caption"][label]), evidence.caption[label])
    assert (found["caption"] is None) == (caption is None)


def test_a_model_of_pictures_alone_takes_a_form_with_an_empty_caption(tiny_picture: Path) -> None:
    predictor = Predictor.load(tiny_picture)
    answer = ask(predictor, "POST", "/v1/predict", files={"image": RED}, data={"caption": ""})
    assert answer.json() == predictor.predict(RED).to_dict()
    refused = ask(predictor, "POST", "/v1/predict", files={"image": RED}, data={"caption": "red"})
    assert (refused.status_code, refused.json()["type"]) == (400, "CaptionError")


class Runs:
    """Notes how many rows each run of the graph had; `gate` holds decoding until as many rows are there."""

    def __init__(self, predictor: Predictor, monkeypatch: pytest.MonkeyPatch, gate: int) -> None:
        self.sizes: list[int] = []
        barrier = threading.Barrier(gate)
        prepare, run = predictor.prepare, predictor.predict_prepared

        def gated(row: Row) -> Pixels:
            barrier.wait(60)
            return prepare(row)

        def noted(rows: Sequence[Row], pixels: Pixels, options: Sequence[PredictionOptions]) -> list[Prediction]:
            self.sizes.append(len(rows))
            return run(rows, pixels, options)

        monkeypatch.setattr(predictor, "prepare", gated)
        monkeypatch.setattr(predictor, "predict_prepared", noted)


def test_requests_that_arrive_together_share_a_run_and_give_the_same_bits(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, captions = pictures(8), ["red", None, "blue no", "green", None, "bright", "no", "red red"]
    expected = [prediction.to_dict() for prediction in predictor.predict_many(data, captions)]
    runs = Runs(predictor, monkeypatch, gate=8)

    async def run() -> list[dict[str, Any]]:
        async with client_of(predictor, batch_size=8, max_wait=3600.0, workers=8) as client:
            requests = [
                client.post("/v1/predict", json={"image": base64_of(one), "caption": caption})
                for one, caption in zip(data, captions, strict=True)
            ]
            return [answer.json() for answer in await asyncio.gather(*requests)]

    found = asyncio.run(run())
    assert runs.sizes == [8]
    assert found == expected


def test_each_request_of_a_run_keeps_its_own_options(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    options: list[dict[str, Any]] = [{"threshold": 0.0}, {"top_k": 1}, {"threshold": 1.0, "at_least_one": True}, {}]
    expected = [predictor.predict(RED, "blue", **one).to_dict() for one in options]
    runs = Runs(predictor, monkeypatch, gate=4)

    async def run() -> list[dict[str, Any]]:
        async with client_of(predictor, batch_size=4, max_wait=3600.0, workers=4) as client:
            requests = [
                client.post("/v1/predict", json={"image": base64_of(RED), "caption": "blue", **one}) for one in options
            ]
            return [answer.json() for answer in await asyncio.gather(*requests)]

    found = asyncio.run(run())
    assert runs.sizes == [4]
    assert found == expected


def test_a_row_that_is_alone_does_not_wait(predictor: Predictor) -> None:
    # An hour's waiting would end in an error of the client.
    answer = ask(predictor, "POST", "/v1/predict", {"max_wait": 3600.0}, json={"caption": "red"})
    assert answer.status_code == 200


def test_no_run_is_larger_than_the_batch_size(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pictures(7)
    expected = [prediction.to_dict() for prediction in predictor.predict_many(data, batch_size=3)]
    runs = Runs(predictor, monkeypatch, gate=1)
    request = {"inputs": [{"image": base64_of(one)} for one in data]}
    answer = ask(predictor, "POST", "/v1/predict", {"batch_size": 3, "max_wait": 0.0}, json=request)
    assert sum(runs.sizes) == 7
    assert max(runs.sizes) <= 3
    for found, wanted in zip(answer.json()["predictions"], expected, strict=True):
        assert found["labels"] == wanted["labels"]
        assert found["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-6)


def test_two_runs_of_the_graph_go_on_at_once(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    run_graph, both = predictor.predict_prepared, threading.Barrier(2)

    def meets(*arguments: Any) -> list[Prediction]:
        both.wait(60)
        return run_graph(*arguments)

    monkeypatch.setattr(predictor, "predict_prepared", meets)
    request = {"inputs": [{"caption": "red"}, {"caption": "blue"}]}
    answer = ask(predictor, "POST", "/v1/predict", {"batch_size": 1, "workers": 2}, json=request)
    assert answer.json()["predictions"] == [predictor.predict(None, one).to_dict() for one in ("red", "blue")]


@pytest.mark.parametrize(("provider", "workers", "runs"), [("cpu", 4, 2), ("cpu", 1, 1), ("openvino", 4, 1)])
def test_runs_at_once_are_for_several_cpus(provider: str, workers: int, runs: int) -> None:
    assert ServeSettings(workers=workers).runs_at_once(provider) == runs


def test_beyond_the_queue_requests_get_503_and_those_in_it_an_answer(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, go, begun = predictor.prepare, threading.Event(), threading.Semaphore(0)

    def held(row: Row) -> Pixels:
        begun.release()
        assert go.wait(60)
        return prepare(row)

    monkeypatch.setattr(predictor, "prepare", held)

    async def run() -> None:
        async with client_of(predictor, max_queue=2, workers=2) as client:
            loop = asyncio.get_running_loop()
            taken = [asyncio.ensure_future(client.post("/v1/predict", json={"caption": "red"})) for _ in range(2)]
            for _ in taken:
                assert await loop.run_in_executor(None, begun.acquire, True, 60)
            refused = await client.post("/v1/predict", json={"caption": "red"})
            alive = await client.get("/v2/health/live")
            numbers = (await client.get("/metrics")).text
            go.set()
            answers = [await answer for answer in taken]
            again = await client.post("/v1/predict", json={"caption": "red"})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["type"] == "ServerBusyError"
        assert "mlic_queue_rows 2.0" in numbers
        assert alive.status_code == 200
        assert [answer.status_code for answer in (*answers, again)] == [200, 200, 200]

    asyncio.run(run())


def test_a_request_that_no_queue_can_take_is_refused_for_good(predictor: Predictor) -> None:
    request = {"inputs": [{"caption": "red"}] * 3}
    answer = ask(predictor, "POST", "/v1/predict", {"max_queue": 2}, json=request)
    assert (answer.status_code, answer.json()["type"]) == (413, "RequestTooLargeError")


def test_a_graph_that_fails_costs_its_batch_and_shows_no_trace(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run_graph = predictor.predict_prepared
    failures = [RuntimeError("secret path /home/x")]

    def fails_once(*arguments: Any) -> list[Prediction]:
        if failures:
            raise failures.pop()
        return run_graph(*arguments)

    monkeypatch.setattr(predictor, "predict_prepared", fails_once)

    async def run() -> list[httpx.Response]:
        async with client_of(predictor) as client:
            return [await client.post("/v1/predict", json={"caption": "red"}) for _ in range(2)]

    bad, good = asyncio.run(run())
    assert bad.status_code == 500
    assert bad.json() == {"error": "the server failed; its log says why", "type": "InternalError"}
    assert "secret" in caplog.text
    assert good.json() == predictor.predict(None, "red").to_dict()


def test_the_models_are_listed(predictor: Predictor) -> None:
    [model] = ask(predictor, "GET", "/v1/models").json()["models"]
    assert (model["name"], model["version"]) == (predictor.manifest.name, predictor.manifest.version)
    assert model["labels"] == [
        {"name": label.name, "threshold": label.threshold} for label in predictor.manifest.labels
    ]
    assert (model["reads_caption"], model["precision"]) == (True, predictor.precision)


def test_metrics_are_prometheus_text(predictor: Predictor) -> None:
    async def run() -> httpx.Response:
        async with client_of(predictor) as client:
            await client.post("/v1/predict", json={"inputs": [{"caption": "red"}, {}]})
            await client.get("/nowhere")
            return await client.get("/metrics")

    answer = asyncio.run(run())
    assert answer.headers["content-type"].startswith("text/plain; version=")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["mlic_requests_total", "predict", "200"] == 1
    assert samples["mlic_requests_total", "none", "404"] == 1
    assert samples["mlic_predictions_total", "predicted"] == 1
    assert samples["mlic_predictions_total", "refused"] == 1
    assert samples["mlic_batch_rows_sum",] == 1
    assert samples["mlic_queue_rows",] == 0


def routes_of(predictor: Predictor, **settings: Any) -> set[tuple[str, str]]:
    app: Any = create_application(predictor, ServeSettings(**settings))
    return {
        (route.path or "/", method.lower())
        for route in app._app.routes
        for method in (getattr(route, "methods", None) or {"GET"}) - {"HEAD"}
    }


@pytest.mark.parametrize("with_page", [False, True])
def test_openapi_describes_exactly_the_routes(predictor: Predictor, tmp_path: Path, with_page: bool) -> None:
    settings = {"page": tmp_path} if with_page else {}
    described = ask(predictor, "GET", "/openapi.json", settings).json()
    found = {(path, method) for path, item in described["paths"].items() for method in item.keys() - {"parameters"}}
    assert found == routes_of(predictor, **settings)
    names = set(described["components"]["schemas"])
    assert set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(described["paths"]))) <= names


def check(schema: dict[str, Any], value: object, schemas: dict[str, Any]) -> None:
    """As much of JSON Schema as the description uses."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    kinds = schema.get("type", [])
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    if kinds:
        kind = "null" if value is None else names[type(value)]
        assert kind in kinds if isinstance(kinds, list) else kind == kinds, (schema, value)
    if isinstance(value, dict):
        known = schema.get("properties", {})
        assert set(schema.get("required", [])) <= set(value)
        assert schema.get("additionalProperties", True) is not False or set(value) <= set(known)
        for name, one in value.items():
            check(known.get(name, {}), one, schemas)
    if isinstance(value, list):
        for one in value:
            check(schema.get("items", {}), one, schemas)
    if "anyOf" in schema:
        assert any(passes(choice, value, schemas) for choice in schema["anyOf"])


def passes(schema: dict[str, Any], value: object, schemas: dict[str, Any]) -> bool:
    try:
        check(schema, value, schemas)
    except AssertionError:
        return False
    return True


def test_answers_and_requests_are_as_openapi_says(predictor: Predictor) -> None:
    infer = {"inputs": [{"name": "caption", "datatype": "BYTES", "shape": [1], "data": ["red"]}]}
    name = predictor.manifest.name
    cases: list[tuple[str, str, Any]] = [
        ("/v1/predict", "post", {"image": base64_of(RED), "caption": "red", "top_k": 1, "evidence": True}),
        ("/v1/predict", "post", {"inputs": [{"caption": "red"}, {}]}),
        ("/v1/models", "get", None),
        ("/v2", "get", None),
        ("/v2/health/live", "get", None),
        ("/v2/health/ready", "get", None),
        ("/v2/models/{name}", "get", None),
        ("/v2/models/{name}/ready", "get", None),
        ("/v2/models/{name}/infer", "post", infer),
    ]

    async def run() -> None:
        async with client_of(predictor) as client:
            described = (await client.get("/openapi.json")).json()
            schemas = described["components"]["schemas"]
            for path, method, body in cases:
                answer = await client.request(method, path.format(name=name), json=body)
                operation = described["paths"][path][method]
                assert answer.status_code == 200
                check(operation["responses"]["200"]["content"]["application/json"]["schema"], answer.json(), schemas)
                if body is not None:
                    content = operation["requestBody"]["content"]["application/json"]
                    check(content["schema"], body, schemas)
            refused = await client.post("/v1/predict", json={})
            check(schemas["Error"], refused.json(), schemas)

    asyncio.run(run())


def test_the_page_is_that_of_the_browser_and_uses_the_server(predictor: Predictor) -> None:
    page = ask(predictor, "GET", "/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.content == ask(predictor, "GET", "/index.html").content == (ROOT / "web" / "index.html").read_bytes()
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; connect-src 'self'")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert ask(predictor, "GET", "/places.js").text == "export default ['server'];\n"
    script = ask(predictor, "GET", "/page.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert script.headers["content-security-policy"] == policy
    for name in re.findall(r'"\./([\w.-]+)"', page.text + script.text):
        assert ask(predictor, "GET", f"/{name}").status_code == 200
    examples = ask(predictor, "GET", "/examples/examples.json").json()
    pictures = [ask(predictor, "GET", f"/examples/{example['file']}") for example in examples]
    assert [picture.headers["content-type"] for picture in pictures] == ["image/png", "image/jpeg", "image/jpeg"]
    assert ask(predictor, "HEAD", "/").content == b""
    for method, path, status in (
        ("GET", "/README.md", 404),
        ("GET", "/tests/golden.json", 404),
        ("GET", "/../README.md", 404),
        ("GET", "/%2e%2e/README.md", 404),
        ("POST", "/nowhere", 404),
        ("POST", "/", 405),
    ):
        assert ask(predictor, method, path).status_code == status, path


def test_the_wheel_carries_every_file_of_the_page() -> None:
    lines = (ROOT / "mlic_runtime" / "pyproject.toml").read_text().splitlines()
    carried = {line for line in lines if line.startswith(('"../web/', '"../examples/'))}
    made = {"examples/examples.json"}
    paths = [name if name.startswith("examples/") else f"web/{name}" for name in read_page_files().keys() - made]
    assert carried == {f'"../{path}" = "{path}"' for path in paths}
    sources = {path.name for path in (ROOT / "web").iterdir() if path.suffix in (".js", ".html", ".css")}
    assert set(PAGE_FILES) == sources


def test_the_page_of_a_site_may_use_the_server(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<h1>site</h1>")
    (tmp_path / "places.js").write_text('export default ["browser"];')
    settings = {"page": tmp_path}
    assert ask(predictor, "GET", "/places.js", settings).text == "export default ['server', 'browser'];\n"
    page = ask(predictor, "GET", "/", settings)
    assert page.text == "<h1>site</h1>"
    assert page.headers["cross-origin-opener-policy"] == "same-origin"
    assert page.headers["cross-origin-embedder-policy"] == "require-corp"
    refused = ask(predictor, "GET", "/none.txt", settings)
    assert (refused.status_code, refused.json()["type"]) == (404, "NotFoundError")


def test_a_folder_of_static_files_is_served(predictor: Predictor, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "index.html").write_text("<h1>page</h1>")
    (folder / "run.wasm").write_bytes(b"\0asm")
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    settings = {"page": folder}
    assert ask(predictor, "GET", "/", settings).text == "<h1>page</h1>"
    assert ask(predictor, "GET", "/run.wasm", settings).headers["content-type"] == "application/wasm"
    for path in ("/link.txt", "/../secret.txt", "/%2e%2e/secret.txt", "/none.txt"):
        refused = ask(predictor, "GET", path, settings)
        assert (refused.status_code, refused.json()["type"]) == (404, "NotFoundError")
    assert ask(predictor, "POST", "/v1/predict", settings, json={"caption": "red"}).status_code == 200
