"""Answers as JSON: predictions, evidence, and the one shape of all errors."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from mlic_runtime.base.text import encode, to_json
from mlic_runtime.errors import InputError, MlicError
from mlic_runtime.predict.evidence import Evidence
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
    """Return the answer to one input: as `mlic-infer` writes it and perhaps with "evidence", or an error."""
    if isinstance(result, InputError):
        return error_dict(result)
    answer = result.to_dict()
    if result.evidence is not None:
        answer["evidence"] = evidence_dict(result.evidence)
    return answer


def evidence_dict(evidence: Evidence) -> dict[str, Any]:
    """Return the fields of `Evidence`, with lists in place of arrays."""
    picture, caption = evidence.picture, evidence.caption
    return {
        "method": evidence.method,
        "picture": None if picture is None else {label: part.tolist() for label, part in picture.items()},
        "words": list(evidence.words),
        "spans": [list(span) for span in evidence.spans],
        "caption": None if caption is None else {label: part.tolist() for label, part in caption.items()},
        "rest": dict(evidence.rest),
    }
