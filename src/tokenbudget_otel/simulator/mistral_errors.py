"""Error statuses in Mistral's words."""

from __future__ import annotations

from typing import Any, Final

from tokenbudget_otel.simulator.errors import Wording, wording
from tokenbudget_otel.simulator.sse import dump

MISTRAL: Final = {
    400: Wording("invalid_request_error", "Invalid request.", "3051"),
    401: Wording("unauthorized", "Unauthorized"),
    404: Wording("not_found", "Not found"),
    422: Wording("invalid_request_error", "Unprocessable request."),
    429: Wording("rate_limited", "Rate limit exceeded", "1300"),
    500: Wording("internal_server_error", "Service unavailable.", "3700"),
    503: Wording("service_unavailable", "Service unavailable.", "3505"),
}


def mistral_error(said: Wording, status: int) -> dict[str, Any]:
    """Mistral's error object."""
    return {
        "object": "error",
        "message": said.message,
        "type": said.type,
        "param": None,
        "code": said.code,
        "raw_status_code": status,
    }


def mistral_body(status: int, message: str | None, _request_id: str) -> bytes:
    """The body of an error status."""
    return dump(mistral_error(wording(MISTRAL, status, message), status))
