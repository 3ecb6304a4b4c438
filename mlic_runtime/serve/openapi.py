"""The description of all routes that `/openapi.json` gives (OpenAPI 3.1)."""

from typing import Any

from mlic_runtime.package.manifest import Manifest
from mlic_runtime.version import __version__

from .settings import ServeSettings

_ERROR = {
    "description": "What was found, what was expected, what to do.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
_TEXT = {"type": "string"}
_OPTIONS: dict[str, Any] = {
    "threshold": {"type": "number", "minimum": 0, "maximum": 1, "description": "Replaces that of every label."},
    "top_k": {"type": "integer", "minimum": 1, "description": "Give only the K most probable labels' probabilities."},
    "at_least_one": {"type": "boolean", "default": False, "description": "Predict the most probable label at least."},
    "evidence": {"type": "boolean", "default": False, "description": "Also say where the labels come from."},
}
_BASE64 = {"type": ["string", "null"], "contentEncoding": "base64", "description": "The bytes of a picture file."}
_CAPTION = {"type": ["string", "null"], "description": "A text about the picture."}
_INPUT: dict[str, Any] = {"image": _BASE64, "caption": _CAPTION}
_NUMBERS_BY_LABEL = {"type": "object", "additionalProperties": {"type": "number"}}
_ARRAYS_BY_LABEL = {"type": ["object", "null"], "additionalProperties": {"type": "array"}}


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [], "additionalProperties": False}


def _all_of(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_TENSOR = _all_of({"name": _TEXT, "datatype": _TEXT, "shape": _array({"type": "integer"})})
_SCHEMAS: dict[str, Any] = {
    "Error": _all_of({"error": _TEXT, "type": _TEXT}),
    "PredictRequest": _closed(
        {**_INPUT, "inputs": {"type": ["array", "null"], "items": _closed(_INPUT)}, **_OPTIONS},
    ),
    "PredictForm": _closed(
        {
            "image": _array({"type": "string", "contentMediaType": "application/octet-stream"}),
            "caption": _array(_TEXT),
            **_OPTIONS,
        }
    ),
    "Prediction": {
        **_all_of(
            {
                "image": {"type": ["string", "null"]},
                "caption": {"type": ["string", "null"]},
                "labels": _array(_TEXT),
                "probabilities": _NUMBERS_BY_LABEL,
                "model": _TEXT,
            }
        ),
        "description": "With `evidence`, if it was asked for.",
    },
    "Evidence": _all_of(
        {
            "method": {"enum": ["contributions", "occlusion"]},
            "picture": _ARRAYS_BY_LABEL,
            "words": _array(_TEXT),
            "spans": _array(_array({"type": "integer"})),
            "caption": _ARRAYS_BY_LABEL,
            "rest": _NUMBERS_BY_LABEL,
        }
    ),
    "Predictions": _all_of(
        {
            "predictions": _array(
                {"anyOf": [{"$ref": "#/components/schemas/Prediction"}, {"$ref": "#/components/schemas/Error"}]}
            )
        }
    ),
    "Models": _all_of({"models": _array({"type": "object"})}),
    "ServerMetadata": _all_of({"name": _TEXT, "version": _TEXT, "extensions": _array(_TEXT)}),
    "ModelMetadata": _all_of(
        {
            "name": _TEXT,
            "versions": _array(_TEXT),
            "platform": _TEXT,
            "inputs": _array(_TENSOR),
            "outputs": _array(_TENSOR),
        }
    ),
    "InferRequest": {
        "type": "object",
        "properties": {
            "id": _TEXT,
            "inputs": _array({**_TENSOR, "properties": {**_TENSOR["properties"], "data": _array(_TEXT)}}),
            "outputs": _array({"type": "object", "properties": {"name": _TEXT}, "required": ["name"]}),
            "parameters": {"type": "object"},
        },
        "required": ["inputs"],
    },
    "InferResponse": _all_of({"model_name": _TEXT, "model_version": _TEXT, "outputs": _array(_TENSOR)}),
    "Live": _all_of({"live": {"type": "boolean"}}),
    "Ready": _all_of({"ready": {"type": "boolean"}}),
    "ModelReady": _all_of({"name": _TEXT, "ready": {"type": "boolean"}}),
}
_SCHEMAS["Prediction"]["properties"]["evidence"] = {"$ref": "#/components/schemas/Evidence"}


def describe(manifest: Manifest, settings: ServeSettings) -> dict[str, Any]:
    """Return the description of a server with this model and these limits."""
    predict = _operation(
        f"Predict labels. Up to {settings.max_inputs} inputs and {settings.max_body} bytes.",
        ["Prediction", "Predictions"],
        {"multipart/form-data": "PredictForm", "application/json": "PredictRequest"},
        [400, 408, 413, 415, 503],
    )
    paths: dict[str, Any] = {
        "/v1/predict": {"post": predict},
        "/v1/models": {"get": _operation("The model, its labels and thresholds.", ["Models"])},
        "/v2": {"get": _operation("The server.", ["ServerMetadata"])},
        "/v2/health/live": {"get": _operation("Whether the server lives.", ["Live"], token=False)},
        "/v2/health/ready": {"get": _operation("Whether it can predict.", ["Ready"], token=False)},
        "/metrics": {"get": _operation("Numbers for Prometheus.", [], other="text/plain")},
        "/openapi.json": {"get": _operation("This description.", [], other="application/json")},
        "/": {"get": _operation("A page to try the model.", [], other="text/html")},
    }
    for prefix, names in (
        ("/v2/models/{name}", ["name"]),
        ("/v2/models/{name}/versions/{version}", ["name", "version"]),
    ):
        infer = _operation(
            "Predict by the Open Inference Protocol.",
            ["InferResponse"],
            {"application/json": "InferRequest"},
            [400, 404, 408, 413, 415, 503],
        )
        for path, method, operation in (
            (prefix, "get", _operation("The inputs and outputs.", ["ModelMetadata"], errors=[404])),
            (f"{prefix}/ready", "get", _operation("Whether the model is ready.", ["ModelReady"], errors=[404])),
            (f"{prefix}/infer", "post", infer),
        ):
            parameters = [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in names]
            paths[path] = {"parameters": parameters, method: operation}
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": f"mlic-serve: {manifest.title}", "version": __version__},
        "paths": paths,
        "components": {"schemas": _SCHEMAS},
    }
    if settings.token is not None:
        described["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "basic": {"type": "http", "scheme": "basic", "description": "Any name; the token is the password."},
        }
        described["security"] = [{"bearer": []}, {"basic": []}]
    return described


def _operation(
    summary: str,
    schemas: list[str],
    body: dict[str, str] | None = None,
    errors: list[int] | None = None,
    *,
    token: bool = True,
    other: str | None = None,
) -> dict[str, Any]:
    references = [{"$ref": f"#/components/schemas/{name}"} for name in schemas]
    schema: dict[str, Any] = references[0] if len(references) == 1 else {"anyOf": references}
    content = {other: {}} if other else {"application/json": {"schema": schema}}
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "200": {"description": "The answer.", "content": content},
            **{str(status): _ERROR for status in errors or ()},
            **({"401": _ERROR} if token else {}),
        },
    }
    if not token:
        operation["security"] = []
    if body:
        operation["requestBody"] = {
            "required": True,
            "content": {kind: {"schema": {"$ref": f"#/components/schemas/{name}"}} for kind, name in body.items()},
        }
    return operation
