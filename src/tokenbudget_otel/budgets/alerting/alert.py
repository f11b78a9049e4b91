"""Alerts as they are declared: at which share of a limit, whom to tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

from tokenbudget_otel.budgets.checks import checked_number

if TYPE_CHECKING:
    from tokenbudget_otel.budgets.alerting.alerts import AlertEvent

Kind = Literal["log", "call", "webhook", "slack"]

_SLACK: Final = "slack:"
_SLACK_HOST: Final = "hooks.slack.com"


@dataclass(frozen=True, init=False, repr=False)
class Alert:
    """Tell somebody, once for each scope and window of a budget, when so much of its limit is used.

    Args:
        at: the share of the limit, in money, tokens or calls, whichever is used most: 0.8 for 80 %. Above 0, at
            most 10 (a limit can be passed).
        to: ``"log"``, a function that takes an :class:`AlertEvent`, the URL of a webhook (``https://…``), or of a
            Slack hook (``https://hooks.slack.com/…``; with ``slack:`` before it, of one at another host).
        secret: signs what is sent to a webhook, so that it can tell who sent it.

    Raises:
        ValueError: for anything that cannot work, naming it and the remedy.

    >>> Alert(0.5), Alert(to="https://hooks.slack.com/services/T0/B0/x").kind
    (Alert(at=0.5, to='log'), 'slack')
    >>> Alert(80)
    Traceback (most recent call last):
    ...
    ValueError: at must be a number above 0 and at most 10, not 80
    """

    # A function is another object each time the program that declares it is read: it makes no difference between two
    # alerts, and so two equal budgets stay equal. What stands for it is `kind`.
    at: float
    to: Callable[[AlertEvent], object] | str = field(compare=False)
    secret: str | None
    kind: Kind
    url: str | None

    def __init__(
        self,
        at: float = 0.8,
        to: Callable[[AlertEvent], object] | str = "log",
        secret: str | None = None,
    ) -> None:
        kind, url = _destination(to)
        if secret is not None and (not isinstance(secret, str) or not secret):
            raise ValueError("secret must be a text that signs what is sent to a webhook")
        if secret is not None and kind != "webhook":
            raise ValueError(f"secret signs what is sent to a webhook, and this alert goes to {kind}: leave it out")
        values: dict[str, Any] = {"at": checked_number("at", at, 10), "to": to, "secret": secret}
        for name, value in {**values, "kind": kind, "url": url}.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        # The URL of a hook is as good as a password, and reprs end in logs.
        to = f"{self.kind}:{urlsplit(self.url).netloc.rpartition('@')[2]}/…" if self.url else self.to
        return f"Alert(at={self.at!r}, to={to!r}{', secret=…' if self.secret else ''})"


def checked_alerts(alerts: object) -> tuple[Alert, ...]:
    """Alerts as they are stored; a number stands for one to the log, a mapping for its arguments.

    >>> checked_alerts([0.5, {"at": 1, "to": "https://example.com/hook"}])
    (Alert(at=0.5, to='log'), Alert(at=1.0, to='webhook:example.com/…'))
    """
    if not isinstance(alerts, list | tuple):
        raise ValueError(f"alerts must be a list such as [Alert(at=0.8)], not {alerts!r}")
    return tuple(_alert(number, each) for number, each in enumerate(alerts, 1))


def _alert(number: int, declared: object) -> Alert:
    if isinstance(declared, Alert):
        return declared
    arguments = declared if isinstance(declared, Mapping) else {"at": declared}
    if strange := [name for name in arguments if name not in ("at", "to", "secret")]:
        raise ValueError(f"alert {number}: unknown key {strange[0]!r}: an alert has 'at', 'to' and 'secret'")
    try:
        return Alert(**arguments)
    except ValueError as error:
        raise ValueError(f"alert {number}: {error}") from None


def _destination(to: object) -> tuple[Kind, str | None]:
    if to == "log":
        return "log", None
    if callable(to):
        return "call", None
    if isinstance(to, str):
        slack = to.startswith(_SLACK)
        url = to.removeprefix(_SLACK)
        try:
            parts = urlsplit(url)
            known = parts.scheme in ("http", "https") and parts.hostname
        except ValueError:
            known = None
        if known and url.isprintable() and " " not in url:
            return ("slack" if slack or known == _SLACK_HOST else "webhook"), url
        raise ValueError(
            "to must be 'log', a function, the URL of a webhook ('https://…'), or of a Slack hook "
            f"('https://{_SLACK_HOST}/…'), not {to.split('//')[0] + '…' if '//' in to else to!r}"
        )
    raise ValueError(f"to must be 'log', a function or a URL, not {to!r}")
