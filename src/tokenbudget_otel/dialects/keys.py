"""How calls that are told of twice are recognised: what a door and the span processor leave for one another."""

from typing import Final

COVERED_BY: Final = "tokenbudget.call.covered_by"
"""Set by the span processor on a span that repeats a call which is charged on another span: the id of that call."""

METERED_KEY: Final = "tokenbudget-metered-call"
"""Key of the OpenTelemetry context under which the id of a call stands while that call is metered where it is made.
A span that starts in such a context tells of that call once more."""
