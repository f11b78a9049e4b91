"""Error statuses in Cohere's words."""

from __future__ import annotations

from typing import Final

from tokenbudget_otel.simulator.errors import Wording, wording
from tokenbudget_otel.simulator.sse import dump

COHERE: Final = {
    400: Wording("bad_request", "invalid request: message must be at least 1 token long."),
    401: Wording("unauthorized", "invalid api token"),
    402: Wording("payment_required", "Please add or update your payment method"),
    404: Wording("not_found", "model not found"),
    422: Wording("unprocessable_entity", "the request could not be processed"),
    429: Wording("too_many_requests", "You are past the per minute request limit, please wait and try again later."),
    500: Wording("internal_server_error", "internal server error, this has been reported to our developers."),
    503: Wording("service_unavailable", "the service is overloaded, please try again later."),
    504: Wording("gateway_timeout", "the request timed out"),
}


def cohere_body(status: int, message: str | None, request_id: str) -> bytes:
    """The body of an error status."""
    return dump({"id": request_id, "message": wording(COHERE, status, message).message})
