"""Answers as JSON: predictions, evidence, and the one shape of all errors."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from mlic_runtime.base.text import encode, to_json
from mlic_runtime.errors import InputError, MlicError
from mlic_runtime.predict.prediction import Prediction


def json_response(content: dict[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer in JSON."""
    return Response(
        encode(to_json(content, indent=None)), status, media_type="application/json", headers=dict(headers or {})
    )


def error_dict(error: MlicError) -> dict[str, str]:
    """Return an error as every answer has it: {"error": its line, "type": name of its class}.

    It is what the Open Inference Protocol prescribes ("error" is a text), and the type beside it.
    """
    described = error.to_dict()
    return {"error": described["message"], "type": described["type"]}


def result_dict(result: Prediction | InputError) -> dict[str, Any]:
    """Return the answer to one input: a prediction, with "evidence" if it was asked for, or an error."""
    return error_dict(result) if isinstance(result, InputError) else result.to_dict()
