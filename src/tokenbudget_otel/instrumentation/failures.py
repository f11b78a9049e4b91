"""Whether a call that failed may have been billed: what an error proves, across SDKs and HTTP libraries."""

from __future__ import annotations

from typing import Any, Final

from tokenbudget_otel.budgets import BudgetExceeded
from tokenbudget_otel.instrumentation.facts import get

UNBILLED_STATUS: Final = frozenset((400, 401, 402, 403, 404, 405, 409, 413, 415, 422, 429))
"""HTTP answers by which a provider says that it did not take the request on. A 5xx may come after the work."""

UNSENT_ERRORS: Final = frozenset(
    (
        # httpx and httpx2
        "ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol", "InvalidURL",
        # aiohttp
        "ClientConnectorError", "ClientConnectorDNSError", "ConnectionTimeoutError",
        # requests and urllib3
        "NewConnectionError", "ConnectTimeoutError", "InvalidSchema", "MissingSchema",
        # botocore
        "EndpointConnectionError", "NoCredentialsError", "PartialCredentialsError", "NoRegionError",
        "ParamValidationError", "ProxyConnectionError", "CredentialRetrievalError", "TokenRetrievalError",
        "UnauthorizedSSOTokenError", "NoAuthTokenError",
    )
)  # fmt: skip
"""Errors that happen before a byte of the request is sent, by the names that libraries give them."""

_CLOSED: Final = "Cannot send a request, as the client has been closed."
"""What httpx and httpx2 say, in a plain ``RuntimeError``, of a client that was closed before."""

_STATUS_PATHS: Final = (
    ("status_code",),  # Stainless, Fern and Speakeasy SDKs, ollama, litellm
    ("code",),  # google
    ("http_status",),  # voyageai
    ("response", "ResponseMetadata", "HTTPStatusCode"),  # botocore
    ("response", "status_code"),  # errors of HTTP libraries
)

_SENDING: Final = frozenset(("_send_request", "send", "_process_response", "_make_request", "urlopen"))


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an SDK's error stands for, or ``None`` where it stands for none."""
    for path in _STATUS_PATHS:
        status: Any = get(error, *path)
        if isinstance(status, int) and not isinstance(status, bool) and 100 <= status < 600:
            return status
    return None


def provably_unbilled(error: BaseException) -> bool:
    """Whether ``error`` proves that the provider did not do the work: see :data:`UNBILLED_STATUS`."""
    status = status_of(error)
    if status is not None:
        return status in UNBILLED_STATUS
    if unsent(error):
        return True
    # An error that neither the SDK's connection layer nor a cancellation raised came before the request was
    # sent: a bad argument, a body that cannot be encoded.
    return isinstance(error, TypeError | ValueError | BudgetExceeded) and not _sent(error)


def unsent(error: BaseException | None) -> bool:
    """Whether ``error``, or what it was made from, happened before a byte of the request was sent."""
    for _ in range(5):
        if error is None:
            return False
        if type(error).__name__ in UNSENT_ERRORS or (isinstance(error, RuntimeError) and str(error) == _CLOSED):
            return True
        error = _made_from(error)
    return False


def _made_from(error: BaseException) -> BaseException | None:
    """The error that this one stands for. requests and urllib3 keep it in the arguments and as ``reason``."""
    # The context without a cause may be an earlier attempt; only `raise … from None` hides what this came from.
    if (cause := error.__cause__ or (error.__context__ if error.__suppress_context__ else None)) is not None:
        return cause
    for inner in (*error.args[:1], getattr(error, "reason", None)):
        if isinstance(inner, BaseException):
            return inner
    return None


def raised_in(error: BaseException, functions: frozenset[str]) -> bool:
    """Whether ``error`` came out of one of ``functions``, by their names, or of what they called."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name in functions:
            return True
        trace = trace.tb_next
    return False


def _sent(error: BaseException) -> bool:
    """Whether ``error`` came out of sending the request, or of reading its answer (JSON that is broken)."""
    return raised_in(error, _SENDING)
