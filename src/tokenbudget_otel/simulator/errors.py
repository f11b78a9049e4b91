"""Error statuses in the words of each provider."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from tokenbudget_otel.simulator.sse import dump


class Wording(NamedTuple):
    """What a provider says with a status."""

    type: str
    message: str
    code: str | None = None


OPENAI: Final = {
    400: Wording("invalid_request_error", "Invalid value in the request.", "invalid_value"),
    401: Wording("invalid_request_error", "Incorrect API key provided.", "invalid_api_key"),
    403: Wording("invalid_request_error", "Country, region, or territory not supported.", "unsupported_country"),
    404: Wording(
        "invalid_request_error", "The model does not exist or you do not have access to it.", "model_not_found"
    ),
    409: Wording("conflict_error", "The resource was changed by another request."),
    413: Wording("invalid_request_error", "Request entity is too large.", "request_too_large"),
    422: Wording("invalid_request_error", "The request could not be processed."),
    429: Wording("requests", "Rate limit reached for requests. Please try again later.", "rate_limit_exceeded"),
    500: Wording("server_error", "The server had an error while processing your request. Sorry about that!"),
    503: Wording("server_error", "The engine is currently overloaded, please try again later."),
}
ANTHROPIC: Final = {
    400: Wording("invalid_request_error", "messages: at least one message is required"),
    401: Wording("authentication_error", "invalid x-api-key"),
    402: Wording("billing_error", "Your credit balance is too low."),
    403: Wording("permission_error", "Your API key does not have permission to use the specified resource."),
    404: Wording("not_found_error", "model not found"),
    413: Wording("request_too_large", "Request exceeds the maximum allowed number of bytes."),
    429: Wording("rate_limit_error", "This request would exceed your account's rate limit."),
    500: Wording("api_error", "Internal server error"),
    503: Wording("api_error", "Service unavailable"),
    504: Wording("timeout_error", "The request timed out."),
    529: Wording("overloaded_error", "Overloaded"),
}

GOOGLE: Final = {
    400: Wording("INVALID_ARGUMENT", "Request contains an invalid argument."),
    401: Wording("UNAUTHENTICATED", "Request had invalid authentication credentials."),
    403: Wording("PERMISSION_DENIED", "The caller does not have permission."),
    404: Wording("NOT_FOUND", "The model is not found for this API version, or is not supported."),
    409: Wording("ABORTED", "The operation was aborted."),
    429: Wording("RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
    500: Wording("INTERNAL", "An internal error has occurred. Please retry."),
    503: Wording("UNAVAILABLE", "The model is overloaded. Please try again later."),
    504: Wording("DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
}


def wording(table: dict[int, Wording], status: int, message: str | None = None) -> Wording:
    """What the table says of a status; of one it does not hold, what it says of its class."""
    found = table.get(status) or table[500 if status >= 500 else 400]
    return found if message is None else found._replace(message=message)


def openai_error(said: Wording, param: str | None = None) -> dict[str, Any]:
    """The error object of OpenAI and those who imitate it."""
    return {"error": {"message": said.message, "type": said.type, "param": param, "code": said.code}}


def anthropic_error(said: Wording, request_id: str) -> dict[str, Any]:
    """The error object of Anthropic."""
    return {"type": "error", "error": {"type": said.type, "message": said.message}, "request_id": request_id}


def openai_body(status: int, message: str | None, _request_id: str) -> bytes:
    return dump(openai_error(wording(OPENAI, status, message)))


def anthropic_body(status: int, message: str | None, request_id: str) -> bytes:
    return dump(anthropic_error(wording(ANTHROPIC, status, message), request_id))


def google_error(status: int, message: str | None = None) -> dict[str, Any]:
    """The error object of Google's APIs."""
    said = wording(GOOGLE, status, message)
    return {"error": {"code": status, "message": said.message, "status": said.type}}


def google_body(status: int, message: str | None, _request_id: str) -> bytes:
    return dump(google_error(status, message))
