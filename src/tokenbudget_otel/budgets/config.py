"""What a file and the environment say of budgets, tags and metering, as docs/configuration.md describes it.

Imported only where configuration is looked for, and what reads TOML only where there is some: it costs milliseconds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote

from tokenbudget_otel.budgets.checks import checked_choice, checked_count, checked_flag, checked_name, checked_usd
from tokenbudget_otel.budgets.declared import Budget
from tokenbudget_otel.budgets.ledger import Limits
from tokenbudget_otel.budgets.ledgers.addresses import sqlite_path
from tokenbudget_otel.budgets.rules import Rule
from tokenbudget_otel.money import to_nano
from tokenbudget_otel.tags import checked_tags

FILE: Final = "tokenbudget.toml"
_PROJECT: Final = "pyproject.toml"
_TABLE: Final = "tool.tokenbudget"

SPAN_TAGS: Final = ("all", "genai", "none")
METRIC_NAMES: Final = ("current", "coming", "both")
CONTENT: Final = ("none", "span", "event", "both")

OPTIONS: Final[dict[str, Callable[[str, object], Any]]] = {
    "former_names": checked_flag,
    "stream_usage": checked_flag,
    "processor": checked_flag,
    "span_tags": lambda name, value: checked_choice(name, value, SPAN_TAGS),
    "metric_names": lambda name, value: checked_choice(name, value, METRIC_NAMES),
    "metric_tags": lambda name, value: _tag_names(name, value),
    "capture_content": lambda name, value: checked_choice(name, value, CONTENT),
    "emit_event": checked_flag,
    "redact": lambda name, value: _function(name, value),
    "content_max_bytes": lambda name, value: _bytes(name, value),
}
"""How calls are metered and spans written, and what checks each option. Also ``TOKENBUDGET_FORMER_NAMES`` and so on."""

LENIENT: Final[Mapping[str, str]] = {
    "metric_names": "TOKENBUDGET_METRIC_NAMES",
    "metric_tags": "TOKENBUDGET_METRIC_TAGS",
    "capture_content": "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
    "emit_event": "OTEL_INSTRUMENTATION_GENAI_EMIT_EVENT",
    "redact": "TOKENBUDGET_REDACT",
    "content_max_bytes": "TOKENBUDGET_CONTENT_MAX_BYTES",
}
"""Options whose variables are read where they are used, since what they say wrongly is told and left out there: a
variable of these that is set counts more than the file."""

KEYS: Final = ("budgets", "limits", "ledger", "dry_run", "tags", "hosts", *OPTIONS)
"""What may stand at the top of a configuration."""

_BUDGET_KEYS: Final = tuple(name for name in Budget.__init__.__kwdefaults__ or () if name != "on_warn")
_LIMIT_KEYS: Final = ("budget", "scope", "usd", "tokens", "calls")

_PREFIX: Final = "TOKENBUDGET_"
_LIMITS: Final = {"LIMIT_USD": str, "LIMIT_TOKENS": float, "LIMIT_CALLS": float}
_SAYS_MORE: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {
    "WINDOW": ("window", str),
    "PER": ("per", lambda text: [name.strip() for name in text.split(",")]),
    "TIMEZONE": ("timezone", str),
    "ACTION": ("action", str),
    "MODE": ("mode", str),
}
_FLAGS: Final = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}

_VARIABLE: Final = re.compile(r"\$(?:\$|\{(\w+)\}|(\w+))")


@dataclass(frozen=True)
class Config:
    """What a file and the environment say. Empty where neither says anything.

    Args:
        budgets: the budgets that are declared.
        ledger: address of the ledger, the path of a file made absolute; ``None`` where none is named.
        source: where it comes from, for people to read.
        limits: other limits for single scopes, by the name that :meth:`.Ledger.set_limits` takes.
        path: the file, if there is one.
        tags: of every call of the process.
        hosts: who answers at which base URL.
        options: those of :data:`OPTIONS` that are said.
    """

    budgets: tuple[Budget, ...] = ()
    ledger: str | None = field(default=None, repr=False)  # may hold a password
    source: str = ""
    limits: Mapping[str, Limits] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    path: Path | None = None
    tags: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    hosts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), hash=False)


def load(path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Read the configuration.

    Args:
        path: the file. By default the one that ``TOKENBUDGET_CONFIG`` names; otherwise ``tokenbudget.toml``, or a
            ``pyproject.toml`` with a table ``[tool.tokenbudget]``, in the working directory or one above it, up to
            the root of the repository or the home directory.
        environ: the environment variables; those of the process by default.

    Raises:
        ValueError: for anything that cannot be meant, naming the file or variable, the table and the key.

    >>> load(environ={"TOKENBUDGET_LIMIT_USD": "50", "TOKENBUDGET_WINDOW": "month"}).budgets[0].limit_usd
    Decimal('50')
    """
    environ = os.environ if environ is None else environ
    said = path or environ.get(f"{_PREFIX}CONFIG")
    found = Path(said).expanduser().absolute() if said else find()
    dry_run = _dry_run(environ)
    config = Config() if found is None else _read(found, environ)
    mine = _one_budget(environ, dry_run)
    ledger = environ.get(f"{_PREFIX}LEDGER", "").strip()
    tags, options = _tags(environ), _options(environ)
    of_file = {name: value for name, value in config.options.items() if not environ.get(LENIENT.get(name, ""))}
    if not (mine or ledger or tags or options) and len(of_file) == len(config.options):
        return config
    _refuse_same_names([*((each, config.source) for each in config.budgets), *((each, "environment") for each in mine)])
    return replace(
        config,
        budgets=(*config.budgets, *mine),
        ledger=ledger or config.ledger,
        source=f"{config.source} and environment" if config.source else "environment",
        tags=MappingProxyType({**config.tags, **tags}),
        options=MappingProxyType({**of_file, **options}),
    )


def find(start: Path | None = None) -> Path | None:
    """The configuration file for a directory: of it, or of one above within the same repository or home."""
    folders = list(_folders((start or Path.cwd()).absolute()))
    for folder in folders:
        if (file := folder / FILE).is_file():
            return file
    for folder in folders:
        try:
            if _TABLE in (folder / _PROJECT).read_text(encoding="utf-8") and _table(folder / _PROJECT) is not None:
                return folder / _PROJECT
        except (OSError, UnicodeDecodeError):  # there is none, or it is not for us
            continue
    return None


def _folders(start: Path) -> Iterator[Path]:
    """A directory and those above it that belong to the same person: up to the repository's root, or home. Outside of
    both, what lies above may be anybody's."""
    try:
        home = Path.home()
    except RuntimeError:
        home = None
    above = (start, *start.parents)
    last = next((number for number, each in enumerate(above) if each == home or (each / ".git").exists()), 0)
    yield from above[: last + 1]


def _read(path: Path, environ: Mapping[str, str]) -> Config:
    try:
        table = _table(path)
    except OSError as error:
        raise ValueError(f"the configuration {path} cannot be read: {error.strerror or error}") from None
    if table is None:
        raise ValueError(f"{path} has no table [{_TABLE}]: add one, or put the configuration into {FILE}")
    return replace(parse(table, str(path), path.parent, environ), path=path)


def parse(table: Mapping[str, Any], source: str, folder: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """The configuration that a table says, from whatever file.

    Args:
        table: the keys of ``tokenbudget.toml``, as that would be read.
        source: where it stands, for error messages.
        folder: what relative paths count from.
        environ: the environment variables that the table may name; ``TOKENBUDGET_DRY_RUN`` overrides what it says.

    Raises:
        ValueError: for anything that cannot be meant, naming the source, the table and the key.
    """
    refuse_unknown(source, table, KEYS)
    dry_run = _dry_run(environ)
    try:
        dry = checked_flag("dry_run", table.get("dry_run", False)) if dry_run is None else dry_run
        ledger = _ledger(folder, table.get("ledger"), environ)
        tags = checked_tags(_mapping("tags", table.get("tags", {}), "team = 'search'"))
        hosts = _mapping("hosts", table.get("hosts", {}), "'llm.example.com' = 'openai'")
        for base_url, provider in hosts.items():
            if not base_url or not isinstance(provider, str) or not provider:
                raise ValueError(f"hosts must name a provider for each base URL, not {provider!r} for {base_url!r}")
        options = {name: check(name, table[name]) for name, check in OPTIONS.items() if name in table}
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    budgets: list[tuple[Budget, str]] = []
    for where, each in _tables(source, table, "budgets"):
        refuse_unknown(where, each, _BUDGET_KEYS)
        try:
            arguments = {**each, "alerts": _with_secrets(each.get("alerts", ()), environ)}
            if dry:
                arguments["dry_run"] = True
            budgets.append((Budget(**arguments), where))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    _refuse_same_names(budgets)
    limits: dict[str, Limits] = {}
    for where, each in _tables(source, table, "limits"):
        refuse_unknown(where, each, _LIMIT_KEYS)
        try:
            policy, other = _other_limits(each, [budget for budget, _ in budgets])
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if policy in limits:
            raise ValueError(f"{where}: there is another [[limits]] table for the same budget and scope: keep one")
        limits[policy] = other
    return Config(
        tuple(budget for budget, _ in budgets),
        ledger,
        source,
        MappingProxyType(limits),
        tags=MappingProxyType(tags),
        hosts=MappingProxyType({base_url.rstrip("/").lower(): provider for base_url, provider in hosts.items()}),
        options=MappingProxyType(options),
    )


def _table(path: Path) -> dict[str, Any] | None:
    import tomllib

    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from None
    if path.name != _PROJECT:
        return table
    tool = table.get("tool", {})
    return tool.get("tokenbudget") if isinstance(tool, dict) else None


def _mapping(name: str, value: object, example: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{name} must be a table such as {{ {example} }}, not {value!r}")
    return value


def _tables(source: str, table: Mapping[str, Any], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The tables of a list, each with a name for error messages."""
    tables = table.get(name, [])
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        raise ValueError(f"{source}: {name} must be tables: write [[{name}]] above the keys of each")
    for number, each in enumerate(tables, 1):
        yield f"{source}: [[{name}]] table {number}", each


def refuse_unknown(where: str, table: Iterable[object], known: tuple[str, ...]) -> None:
    """An error for a key that is not known, with the one that may be meant."""
    for key in table:
        if key not in known:
            close = _closest(str(key), known)
            hint = f"did you mean {close!r}?" if close else f"use one of {', '.join(map(repr, known))}"
            raise ValueError(f"{where}: unknown key {key!r}: {hint}")


def _closest(name: str, known: tuple[str, ...], at_least: float = 0.6) -> str | None:
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, known, 1, at_least)), None)


def _refuse_same_names(budgets: Iterable[tuple[Budget, str]]) -> None:
    seen: dict[str, str] = {}
    for budget, where in budgets:
        if (other := seen.setdefault(budget.name, where)) is not where:
            raise ValueError(
                f"there are two budgets named {budget.name!r}: {other} and {where}. Give one of them another name"
            )


def _ledger(folder: Path, address: object, environ: Mapping[str, str]) -> str | None:
    """The address of a ledger; the path of a file counts from the folder of the configuration."""
    if address is None:
        return None
    if not isinstance(address, str) or not address.strip():
        raise ValueError(
            f"ledger must be an address such as 'sqlite:budgets.db' or 'redis://localhost', not {address!r}"
        )
    address = _expanded(address.strip(), environ)
    lower = address.lower()
    is_file = lower.startswith("sqlite:") or ("://" not in lower and lower.endswith((".db", ".sqlite", ".sqlite3")))
    return f"sqlite:{folder / sqlite_path(address)}" if is_file else address


def _other_limits(table: Mapping[str, Any], budgets: list[Budget]) -> tuple[str, Limits]:
    name = checked_name(table.get("budget"))
    budget = next((each for each in budgets if each.name == name), None)
    if budget is None:
        known = ", ".join(repr(each.name) for each in budgets) or "none"
        raise ValueError(f"there is no budget named {name!r} in this file; declared: {known}")
    scope = table.get("scope", {})
    if not isinstance(scope, dict) or not all(isinstance(value, str) for value in scope.values()):
        raise ValueError(f"scope must be a table of strings such as {{tenant = 'acme'}}, not {scope!r}")
    usd = checked_usd("usd", table.get("usd"))
    limits = Limits(
        None if usd is None else to_nano(usd),
        checked_count("tokens", table.get("tokens")),
        checked_count("calls", table.get("calls")),
    )
    if limits == Limits():
        raise ValueError("it needs a limit: give usd, tokens or calls")
    return Rule(budget).policy(scope), limits


def _with_secrets(alerts: object, environ: Mapping[str, str]) -> object:
    """Alerts with the environment variables that they name in the place of those names."""
    if not isinstance(alerts, list):
        return alerts
    return [
        {key: _expanded(value, environ) if isinstance(value, str) else value for key, value in each.items()}
        if isinstance(each, dict)
        else each
        for each in alerts
    ]


def _expanded(text: str, environ: Mapping[str, str]) -> str:
    """A text with ``$NAME`` and ``${NAME}`` replaced by environment variables, and ``$$`` by a dollar sign.

    >>> _expanded("https://${HOST}/hook?price=$$5", {"HOST": "example.com"})
    'https://example.com/hook?price=$5'
    """

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name is None:
            return "$"
        if not environ.get(name):
            raise ValueError(f"the environment variable {name} is not set, and this needs it (a dollar sign is '$$')")
        return environ[name]

    return _VARIABLE.sub(value, text)


def _one_budget(environ: Mapping[str, str], dry_run: bool | None) -> tuple[Budget, ...]:
    """The budget that environment variables declare."""
    arguments: dict[str, Any] = {}
    for name in sorted(environ):
        short = name.removeprefix(_PREFIX)
        if name.startswith(f"{_PREFIX}LIMIT") and short not in _LIMITS:
            # A limit that is misspelt would be no limit.
            close = _closest(short, tuple(_LIMITS), 0)
            raise ValueError(f"unknown environment variable {name}: did you mean {_PREFIX}{close}?")
    for short, read in _LIMITS.items():
        if text := environ.get(_PREFIX + short, "").strip():
            try:
                arguments[short.lower()] = read(text)
            except ValueError:
                raise ValueError(f"{_PREFIX}{short} must be a number, not {text!r}") from None
    for short, (argument, parse) in _SAYS_MORE.items():
        if text := environ.get(_PREFIX + short, "").strip():
            if not arguments:
                raise ValueError(
                    f"{_PREFIX}{short} is set, and no limit that it could be of: set {_PREFIX}LIMIT_USD, "
                    f"{_PREFIX}LIMIT_TOKENS or {_PREFIX}LIMIT_CALLS as well"
                )
            arguments[argument] = parse(text)
    if not arguments:
        return ()
    try:
        return (Budget(name="environment", dry_run=bool(dry_run), **arguments),)
    except ValueError as error:
        raise ValueError(f"the budget of the environment variables {_PREFIX}LIMIT_…: {error}") from None


def _dry_run(environ: Mapping[str, str]) -> bool | None:
    return _flag("DRY_RUN", environ)


def _flag(short: str, environ: Mapping[str, str]) -> bool | None:
    text = environ.get(_PREFIX + short, "").strip()
    if not text:
        return None
    if text.lower() not in _FLAGS:
        raise ValueError(f"{_PREFIX}{short} must be true or false, not {text!r}")
    return _FLAGS[text.lower()]


def _options(environ: Mapping[str, str]) -> dict[str, Any]:
    """The options that environment variables say."""
    said: dict[str, Any] = {}
    for name, check in OPTIONS.items():
        if name in LENIENT:
            continue
        short = name.upper()
        if check is checked_flag:
            value: object = _flag(short, environ)
        else:
            value = environ.get(_PREFIX + short, "").strip().lower() or None
        if value is not None:
            said[name] = check(_PREFIX + short, value)
    return said


def _tag_names(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{name} must be a list of names of tags such as ['tenant'], not {value!r}")
    checked_tags(dict.fromkeys(value, "any"))
    return tuple(dict.fromkeys(value))


def _function(name: str, value: object) -> str:
    if not isinstance(value, str) or not all(value.partition(":")[::2]):
        raise ValueError(f"{name} must name a function like 'package.module:function', not {value!r}")
    return value


def _bytes(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} must be a number of bytes, 0 for no limit, not {value!r}")
    return value


def _tags(environ: Mapping[str, str]) -> dict[str, str]:
    """The tags of ``TOKENBUDGET_TAGS``, which is written as ``OTEL_RESOURCE_ATTRIBUTES`` is: ``%2C`` is a comma.

    >>> _tags({"TOKENBUDGET_TAGS": "team=search, note=a%2Cb"})
    {'team': 'search', 'note': 'a,b'}
    """
    said: dict[str, str] = {}
    for part in environ.get(f"{_PREFIX}TAGS", "").split(","):
        if not part.strip():
            continue
        name, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"{_PREFIX}TAGS: {part.strip()!r} is not name=value (a comma in a value is written %2C)")
        said[unquote(name.strip())] = unquote(value.strip())
    try:
        return checked_tags(said)
    except ValueError as error:
        raise ValueError(f"{_PREFIX}TAGS: {error}") from None
