"""What a configuration file, the environment and the program say of budgets, tags and metering, put in force."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tokenbudget_otel.budgets import Enforcer, Ledger, Limits
from tokenbudget_otel.tags import tag_process

if TYPE_CHECKING:
    from tokenbudget_otel.budgets.config import Config

logger: Final = logging.getLogger("tokenbudget_otel.budgets")

_lock: Final = threading.Lock()
_configured: Final[weakref.WeakSet[Enforcer]] = weakref.WeakSet()

_hosts: Mapping[str, str] = {}
_options: Mapping[str, Any] = {}
_said: Mapping[str, Any] = {}


def hosts() -> Mapping[str, str]:
    """Who answers at which base URL, as the configuration file says."""
    return _hosts


def option(name: str, default: Any) -> Any:
    """How calls are metered where whoever asks was not told (:data:`tokenbudget_otel.budgets.config.OPTIONS`): as the
    process was told by :func:`say`, as it is configured, or the default.

    >>> option("former_names", False)
    False
    """
    return _said.get(name, _options.get(name, default))


def say(options: Mapping[str, Any]) -> None:
    """Say options for the whole process, over what is configured and in the place of what was said before."""
    global _said
    _said = options


def configure(enforcer: Enforcer, path: str | os.PathLike[str] | None = None) -> None:
    """Put in force what is configured, and keep to it when the file changes. Once for each enforcer, unless a file is
    named.

    Args:
        enforcer: whose budgets.
        path: the file; see :func:`tokenbudget_otel.budgets.config.load` for where it is looked for.

    Raises:
        ValueError: for a configuration that cannot be meant, naming the place.
    """
    with _lock:
        if enforcer in _configured and path is None:
            return
        from tokenbudget_otel.budgets.config import load

        _Applied(enforcer, load(path))
        _configured.add(enforcer)


class _Applied:
    """A configuration in force; called before each call, it looks whether the file has changed."""

    def __init__(self, enforcer: Enforcer, config: Config) -> None:
        from tokenbudget_otel.budgets.config_watch import ConfigWatch

        self._enforcer = enforcer
        self._config = config
        if config.ledger is not None:
            use_ledger(enforcer, config.ledger)
        enforcer.replace(*config.budgets)
        set_limits(enforcer, {}, config.limits)
        self._meter_as(config)
        self._watch = ConfigWatch(config, every=0)  # a few microseconds, so that it holds from the next call on
        if config.path is not None:
            enforcer.refresh = self

    def __call__(self) -> None:
        if (config := self._watch.changed()) is None:
            return
        try:
            self._change_to(config)
        except Exception:
            logger.exception("The configuration %s has changed and cannot be put in force", config.path)

    def _change_to(self, config: Config) -> None:
        before, self._config = self._config, config
        if config.ledger != before.ledger:
            logger.warning(
                "The ledger in %s has changed: it takes effect when the program is started anew", config.path
            )
        kept = {each.name for each in config.budgets}
        known = {each.name for each in self._enforcer.budgets}
        self._enforcer.replace(*config.budgets)
        self._enforcer.remove(*(each.name for each in before.budgets if each.name in known - kept))
        set_limits(self._enforcer, before.limits, config.limits)
        self._meter_as(config)

    def _meter_as(self, config: Config) -> None:
        global _hosts, _options
        _hosts, _options = config.hosts, config.options
        tag_process(config.tags, "configuration")


def set_limits(enforcer: Enforcer, before: Mapping[str, Limits], limits: Mapping[str, Limits]) -> None:
    """Give single scopes other limits, in the place of those ``before``; each by the name :meth:`.Ledger.set_limits`
    takes."""
    for policy in before.keys() - limits.keys():
        enforcer.way.tell("set_limits", policy, None)
    for policy, other in limits.items():
        if before.get(policy) != other:
            enforcer.way.tell("set_limits", policy, other)


def use_ledger(enforcer: Enforcer, ledger: str | Ledger, journal: str | os.PathLike[str] | None = None) -> None:
    """Count in a ledger, given itself or by its address.

    Args:
        enforcer: whose budgets.
        ledger: such as ``"sqlite:budgets.db"`` or ``"redis://localhost"``.
        journal: a folder for what is spent while it cannot be reached. One in the user's state folder by default,
            for a ledger that is given by its address.

    Raises:
        ValueError: for an address that cannot be meant, and a place where no ledger can be kept.
    """
    if isinstance(ledger, str):
        from tokenbudget_otel.budgets.ledgers.addresses import ledger_at

        made = ledger_at(ledger)
        if journal is None and made.shared:
            journal = _journal_of(ledger)
    else:
        made = ledger
    enforcer.use(made, journal=journal)


def _journal_of(address: str) -> Path:
    """Where this user's programs keep what they could not book in a ledger."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "tokenbudget" / hashlib.sha256(address.encode()).hexdigest()[:16]
