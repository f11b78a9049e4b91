"""What a provider's routes file hands to the app: a table from method and path to the function that answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.reply import Reply

Handler: TypeAlias = Callable[[Exchange], Reply]
Table: TypeAlias = dict[tuple[str, str], Handler]
