"""Names of providers and models as they are really reported, and what the catalog calls them.

Everything here is a table or an exact rule. Nothing guesses: a name that no rule explains stays
unknown, because a price of the wrong model is worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date
from functools import lru_cache
from typing import Final

PROVIDERS: Final[dict[str, tuple[str, ...]]] = {
    # catalog id: other names, each written as `plain` writes it
    "openai": ("text-completion-openai", "openai-chat", "openai-responses", "chatgpt"),
    "azure": (
        "azure-ai-openai", "azure-ai-inference", "az-ai-openai", "az-ai-inference", "azure-openai", "azure-ai",
        "azure-text", "azure-ai-foundry", "azureopenai", "microsoft-foundry",
    ),
    "anthropic": ("claude",),
    "aws": (
        "aws-bedrock", "bedrock", "amazon-bedrock", "bedrock-converse", "bedrock-mantle", "amazon-nova", "amazon",
        "bedrock-runtime",
    ),
    "google": (
        "gcp-gemini", "gcp-vertex-ai", "gcp-gen-ai", "gemini", "vertex-ai", "vertexai", "vertex", "google-genai",
        "google-vertex", "google-gla", "google-ai-studio", "google-generativeai", "google-ai", "google-vertexai",
        "vertex-ai-language-models", "vertex-ai-anthropic-models", "vertex-ai-mistral-models",
        "vertex-ai-llama-models", "vertex-ai-embedding-models", "vertex-ai-ai21-models", "vertex-ai-qwen-models",
        "vertex-ai-deepseek-models", "vertex-ai-text-models", "vertex-ai-zai-models", "vertex-ai-openai-models",
        "vertex-ai-minimax-models", "vertex-ai-moonshot-models", "vertex-ai-chat-models",
    ),
    "mistral": ("mistral-ai", "mistralai", "codestral", "text-completion-codestral"),
    "cohere": ("cohere-chat", "cohere-ai"),
    "groq": ("groqcloud",),
    "deepseek": ("deep-seek", "deepseek-ai"),
    "x-ai": ("xai", "grok"),
    "perplexity": ("perplexity-ai", "pplx"),
    "moonshotai": ("moonshot-ai", "moonshot", "kimi"),
    "watsonx": ("ibm-watsonx-ai", "ibm-watsonx", "watsonx-ai"),
    "together": ("together-ai", "togetherai"),
    "fireworks": ("fireworks-ai", "fireworksai", "fireworks-ai-embedding-models"),
    "openrouter": ("open-router",),
    "cerebras": ("cerebras-ai",),
    "cloudflare": ("cloudflare-workers-ai", "workers-ai"),
    "databricks": ("databricks-ai",),
    "github-copilot": ("copilot",),
    "voyageai": ("voyage", "voyage-ai"),
    "meta": ("meta-llama", "meta-ai"),
    "minimax": ("minimax-ai",),
    "zai": ("z-ai",),
    "zhipuai": ("zhipu", "zhipu-ai", "bigmodel"),
    "elevenlabs": ("eleven-labs",),
    "novita": ("novita-ai",),
    "arcee": ("arcee-ai",),
    "deepinfra": ("deep-infra",),
    "vercel-ai-gateway": ("vercel", "ai-gateway"),
}  # fmt: skip
"""Which names mean which provider of the catalog. Case and ``_``, ``.``, space for ``-`` make no difference."""


def plain(name: str) -> str:
    """A provider's name without the ways in which people write it differently.

    >>> plain(" AWS.Bedrock ")
    'aws-bedrock'
    """
    return _pattern(_SEPARATORS).sub("-", name.strip().lower())


_SEPARATORS: Final = r"[\s._/]+"
_IDS: Final = {alias: known for known, aliases in PROVIDERS.items() for alias in (known, *aliases)}


def provider_id(name: str) -> str | None:
    """The catalog's id of a provider that this table knows, ``None`` for all others.

    >>> provider_id("azure.ai.openai"), provider_id("gcp.vertex_ai"), provider_id("x_ai")
    ('azure', 'google', 'x-ai')
    >>> provider_id("somebody-else") is None
    True
    """
    return _IDS.get(plain(name))


# --- clauses: how the catalog says which names a model has -----------------------------------------------------

Clause = str | list["Clause"]
"""A sign and a text (``=`` equal, ``^`` begins, ``$`` ends, ``*`` contains, ``~`` pattern); a list of
clauses matches if one does, or, when it starts with ``"&"``, if all do."""

_COMPACT_DATE: Final = r"(-)(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)"


@lru_cache(maxsize=512)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text)


def matches(clause: Clause, name: str) -> bool:
    """Whether a clause matches a name in lower case.

    A prefix or a part of a name is accepted only if what the clause leaves over does not name another
    family: ``gemini-3.8-flash`` in front does not make a ``gemini-3.8-flash-cyber``.

    >>> matches("^gemini-3.8-flash", "gemini-3.8-flash-2026-09-01")
    True
    >>> matches("^gemini-3.8-flash", "gemini-3.8-flash-cyber")
    False
    """
    if isinstance(clause, list):
        if clause and clause[0] == "&":
            return all(matches(part, name) for part in clause[1:])
        return any(matches(part, name) for part in clause)
    sign, text = clause[0], clause[1:]
    if sign == "=":
        return name == text
    if sign == "^":
        return name.startswith(text) and not names_another_family(name[len(text) :], text)
    if sign == "*":
        _, found, after = name.partition(text)
        return bool(found) and not names_another_family(after, text)
    if sign == "$":
        return name.endswith(text)
    return _pattern(text).search(name) is not None


FAMILY_WORDS: Final = frozenset(
    (
        "audio",
        "codex",
        "cyber",
        "diarize",
        "embedding",
        "image",
        "lite",
        "live",
        "mini",
        "nano",
        "pro",
        "realtime",
        "research",
        "transcribe",
        "tts",
    )
)
"""Words that make another model, with another price, of the one whose name they follow."""

FAMILIES_BY_DESIGN: Final = frozenset(
    (
        "gemini-live-2.5-flash",  # …-preview-native-audio: one family, all of it speaks
        "gemini-3.8-live",
        "moderation",
        "computer-use",
        "gpt-4o-realtime",
        "gpt-4o-mini-realtime",
    )
)
"""Prefixes meant to cover such words."""

_WORDS: Final = r"[a-z]+"


def names_another_family(rest: str, text: str) -> bool:
    """Whether what follows a matched ``text`` in a name says that it is another model.

    >>> names_another_family("-deep-research-2025-06-26", "o4-mini")
    True
    >>> names_another_family("-20251001-v1:0", "claude-haiku-4-5")
    False
    """
    if not rest or text in FAMILIES_BY_DESIGN:
        return False
    return not FAMILY_WORDS.isdisjoint(_pattern(_WORDS).findall(rest))


def dashed_date(name: str) -> str:
    """A compact date as gateways write it (``-20251211``), with dashes.

    >>> dashed_date("gpt-5.2-20251211"), dashed_date("gpt-5.2-20251399")
    ('gpt-5.2-2025-12-11', 'gpt-5.2-20251399')
    """

    def dashes(match: re.Match[str]) -> str:
        year, month, day = match[2], match[3], match[4]
        return f"-{year}-{month}-{day}" if _is_date(year, month, day) else match[0]

    return _pattern(_COMPACT_DATE).sub(dashes, name)


def _is_date(year: str, month: str, day: str) -> bool:
    try:
        date(int(year), int(month), int(day))
    except ValueError:
        return False
    return True


# --- other spellings of a reported name ------------------------------------------------------------------------

_ARN: Final = r"arn:aws[a-z-]*:bedrock:[^:]*:[^:]*:(?P<kind>[a-z-]+)/(?P<id>.+)"
_ARN_KINDS: Final = frozenset(("foundation-model", "inference-profile"))
"""ARNs that name a model. Others (application profiles, custom and provisioned models) need ``map_model``."""


def names_a_model(arn: str) -> bool:
    """Whether an ARN in lower case names a model that Bedrock knows, and not something of the user's own.

    >>> names_a_model("arn:aws:bedrock:us-east-1:111122223333:application-inference-profile/a1b2")
    False
    """
    found = _pattern(_ARN).fullmatch(arn)
    return found is not None and found["kind"] in _ARN_KINDS


@lru_cache(maxsize=1024)
def names_to_price(provider: str, asked: str, answered: str | None) -> tuple[str, ...]:
    """The names by which a call is priced, the first that has a price: the model that answered, usually, and then the
    one that was asked for.

    On Bedrock it is the other way about. The id that was asked for says where the model runs, which makes a tenth of
    the price of newer models; the answer may carry the vendor's own name only. What a profile or a capacity of the
    user's own costs is not told by the model in it.

    >>> names_to_price("openai", "gpt-5", "gpt-5-2025-08-07")
    ('gpt-5-2025-08-07', 'gpt-5')
    >>> names_to_price("aws.bedrock", "global.anthropic.claude-haiku-4-5-20251001-v1:0", "claude-haiku-4-5-20251001")
    ('global.anthropic.claude-haiku-4-5-20251001-v1:0', 'claude-haiku-4-5-20251001')
    """
    if not answered or answered == asked:
        return (asked,)
    if provider_id(provider) != "aws":
        return (answered, asked)
    name = asked.strip().lower()
    own = name.startswith("arn:") and not names_a_model(name) and _pattern(_PROMPT_ROUTER).search(name) is None
    return (asked,) if own else (asked, answered)


_PROMPT_ROUTER: Final = r":(?:default-)?prompt-router/"
"""A router chooses among models that Bedrock sells, and says which one it was."""

_GOOGLE_PATH: Final = r"^(?:projects/[^/]+/locations/[^/]+/)?(?:publishers/[^/]+/)?models/"
_BEDROCK_PLACE: Final = r"^(?:us|us-gov|eu|apac|ap|jp|au|ca|in|sa|me|af|global)\.(?=[a-z0-9-]+\.)"
_BEDROCK_VERSION: Final = r"(?:-v\d+)?(?::\d+)?(?::\d+k)?$"
_DATE: Final = r"[-@](20\d\d)-?(\d\d)-?(\d\d)$"


def _vertex_version(name: str) -> str:
    base, at, version = name.partition("@")
    return name if not at else base if version in ("default", "latest") else f"{base}-{version}"


def _undated(name: str) -> str:
    found = _pattern(_DATE).search(name)
    return name[: found.start()] if found and _is_date(found[1], found[2], found[3]) else name


def _without(pattern: str) -> Callable[[str], str]:
    return lambda name: _pattern(pattern).sub("", name, count=1)


_STEPS: Final[dict[str, tuple[Callable[[str], str], ...]]] = {
    "aws": (_without(_BEDROCK_PLACE), _without(_BEDROCK_VERSION)),
    "google": (_without(_GOOGLE_PATH), _without(r"-(?:latest|\d{3})$")),
    "anthropic": (_without(r"-latest$"),),
}
"""Parts of a name that one provider adds and that change nothing about the price."""


def spellings(provider: str, reported: str) -> Iterator[str]:
    """A reported model's name and then what else it may be listed as, most exact first.

    The last is the name without the date of its snapshot: a snapshot that the catalog does not list is
    priced like its model. Fine-tuned models never become their base.

    >>> list(spellings("openai", "openai/GPT-4o-2030-01-31"))
    ['openai/gpt-4o-2030-01-31', 'gpt-4o-2030-01-31', 'gpt-4o']
    >>> list(spellings("openai", "ft:gpt-4.1-2025-04-14:acme::x1"))
    ['ft:gpt-4.1-2025-04-14:acme::x1', 'ft:gpt-4.1-2025-04-14']
    """
    name = reported.strip().lower()
    yield name
    if name.startswith("arn:"):
        if not names_a_model(name):
            return
        name = name.split("/", 1)[1]
        yield name
    head, slash, tail = name.partition("/")
    if slash and tail and provider_id(head) == provider:
        name = tail
        yield name
    if name.startswith("ft:"):
        base = ":".join(name.split(":")[:2])
        if base != name:
            yield base
        return
    for step in (*_STEPS.get(provider, ()), _vertex_version, _undated):
        shorter = step(name)
        if shorter != name and shorter:
            name = shorter
            yield name


_BEDROCK_ID: Final = (
    r"(?:(?:us|us-gov|eu|apac|ap|jp|au|ca|in|sa|me|af|global)\.)?"
    r"(?:amazon|anthropic|ai21|cohere|deepseek|google|luma|meta|minimax|mistral|moonshot|moonshotai|nvidia|openai|qwen"
    r"|stability|twelvelabs|writer|zai)\.[a-z0-9.:@-]+"
)


def host_of(name: str) -> tuple[str, str] | None:
    """The provider that a model's name itself gives away, and the name there.

    Only what is certain: Bedrock ids and ARNs, and a provider written in front of a slash.

    >>> host_of("us.anthropic.claude-haiku-4-5-20251001-v1:0")
    ('aws', 'us.anthropic.claude-haiku-4-5-20251001-v1:0')
    >>> host_of("mistral/mistral-large-latest")
    ('mistral', 'mistral-large-latest')
    >>> host_of("gpt-5") is None
    True
    """
    name = name.strip().lower()
    if name.startswith("arn:aws") or _pattern(_BEDROCK_ID).fullmatch(name):
        return "aws", name
    head, slash, tail = name.partition("/")
    if slash and tail and (known := provider_id(head)):
        return known, tail
    return None


_OWN_NAMES: Final = {
    "openai": r"(?:gpt-|chatgpt-|o\d|codex-|ft:|text-embedding-(?:3|ada)|(?:text|omni)-moderation|whisper-1|tts-1)",
    "anthropic": r"claude-",
    "google": r"(?:gemini-|gemini/|models/gemini|imagen-|veo-|gemma-|text-embedding-00)",
    "mistral": r"(?:mistral-(?:large|medium|small|embed|ocr)|codestral-|devstral-|magistral-|ministral-|pixtral-)",
    "cohere": r"(?:command-|embed-(?:v4|english|multilingual)|rerank-)",
    "deepseek": r"deepseek-(?:chat|reasoner|v\d)",
    "x-ai": r"grok-",
}


def own_vendor(name: str) -> str | None:
    """Whose model it is by a name in lower case that only one vendor gives, where no provider is known.

    Whether that vendor has such a model is another question: this decides only where to look.

    >>> own_vendor("text-embedding-3-small"), own_vendor("llama-3.3-70b")
    ('openai', None)
    """
    return next((vendor for vendor, pattern in _OWN_NAMES.items() if _pattern(pattern).match(name)), None)
