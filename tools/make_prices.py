"""Make the price catalog that the package ships: ``python tools/make_prices.py`` (``make prices``).

Reads the newest installed genai-prices and, for what it lacks, the price map inside the newest litellm
wheel, which is downloaded into a temporary folder and read without being installed or imported. Writes
``src/tokenbudget_otel/pricing/data/catalog.json.gz``. The same sources give the same bytes.

Options:
    --litellm-wheel FILE   read this wheel instead of downloading one
    --date YYYY-MM-DD      the day the sources were read; by default today, or the day in the present
                           catalog where neither source has a newer version
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

from genai_prices import __version__ as genai_version
from genai_prices import types as genai
from genai_prices.data import providers as genai_providers
from genai_prices.data_units import unit_data

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "src/tokenbudget_otel/pricing/data/catalog.json.gz"
sys.path.insert(0, str(ROOT / "src"))

from tokenbudget_otel.pricing import names, units  # noqa: E402
from tokenbudget_otel.pricing.tariff import COMPLETING  # noqa: E402

Prices = dict[str, Any]

# genai-prices' names of units where ours differ.
GENAI_UNITS = {
    "input_tool_tokens": "tool_use_input_tokens",
    "output_reasoning_tokens": "reasoning_tokens",
    "output_citation_tokens": "citation_tokens",
    "cache_text_read_tokens": "cache_read_text_tokens",
    "cache_audio_read_tokens": "cache_read_audio_tokens",
    "cache_image_read_tokens": "cache_read_image_tokens",
    "cache_video_read_tokens": "cache_read_video_tokens",
    "input_document_pages": "document_pages",
    "input_annotated_document_pages": "annotated_document_pages",
}
UNIT_OF_PRICE_KEY = {raw["price_key"]: GENAI_UNITS.get(key, key) for key, raw in unit_data.items()}

# Groq bills at least ten seconds of audio for each request.
LEAST = {
    ("groq", "whisper-large-v3"): {"input_audio_seconds": 10},
    ("groq", "whisper-large-v3-turbo"): {"input_audio_seconds": 10},
}

# litellm's fields: unit, and how many of it the catalog's price pays for per one of litellm's.
LITELLM_RATES = {
    "input_cost_per_token": "input_tokens",
    "output_cost_per_token": "output_tokens",
    "cache_read_input_token_cost": "cache_read_tokens",
    "input_cost_per_token_cache_hit": "cache_read_tokens",
    "cache_creation_input_token_cost": "cache_write_tokens",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h_tokens",
    "cache_creation_input_token_cost_above_12hr": "cache_write_12h_tokens",
    "output_cost_per_reasoning_token": "reasoning_tokens",
    "citation_cost_per_token": "citation_tokens",
    "input_cost_per_audio_token": "input_audio_tokens",
    "output_cost_per_audio_token": "output_audio_tokens",
    "cache_read_input_audio_token_cost": "cache_read_audio_tokens",
    "input_cost_per_image_token": "input_image_tokens",
    "output_cost_per_image_token": "output_image_tokens",
    "cache_read_input_image_token_cost": "cache_read_image_tokens",
    "input_cost_per_video_token": "input_video_tokens",
    "output_cost_per_video_token": "output_video_tokens",
    "input_cost_per_character": "input_characters",
    "ocr_cost_per_page": "document_pages",
    "annotation_cost_per_page": "annotated_document_pages",
    "input_cost_per_request": "requests",
}
# Fields whose unit depends on what the model does.
LITELLM_RATES_BY_MODE = {
    ("input_cost_per_second", "audio_transcription"): "input_audio_seconds",
    ("output_cost_per_second", "audio_speech"): "output_audio_seconds",
    ("output_cost_per_image", "image_generation"): "output_images",
    ("output_cost_per_image", "image_edit"): "output_images",
    ("input_cost_per_image", "embedding"): "input_images",
    ("input_cost_per_query", "rerank"): "rerank_searches",
    ("input_cost_per_query", "search"): "web_searches",
}
LITELLM_FIELD = re.compile(
    r"(?P<rate>.+?)(?:_above_(?P<start>\d+)k_tokens)?(?:_(?P<tier>batches|priority|flex|ultrafast|balanced|decisions))?$"
)
LITELLM_TIERS = {"batches": "batch"}

# Other spellings of one measure: where the first is priced, the second would bill the same thing twice.
ONE_OF = (
    ("input_tokens", "input_characters"),
    ("input_tokens", "input_audio_seconds"),
    ("input_tokens", "input_images"),
    ("output_tokens", "output_images"),
    ("output_image_tokens", "output_images"),
    ("output_tokens", "output_audio_seconds"),
    ("output_audio_tokens", "output_audio_seconds"),
)

# Of several lists of litellm's that make up one provider here, those whose rows count where others have none.
SECOND_CHOICE = ("azure_", "vertex_ai", "bedrock_mantle", "text-completion-", "codestral", "fireworks_ai-", "chatgpt")

# Modes whose models are not billed in units that we count.
SKIPPED_MODES = {"video_generation", "evaluation", "guardrail", "vector_store", "extraction"}
ZERO_IS_A_PRICE = {"embedding": {"output_tokens"}, "rerank": {"output_tokens"}}

# Routes of litellm's own, which no provider reports: regions, commitments, image sizes, qualities.
SKIPPED_NAMES = re.compile(
    r"-x-|month-commitment|^(?:us|eu|global|global-standard|standard|hd)/|^[a-z]{2}(?:-gov)?-[a-z]+-\d/"
)


def text(value: Decimal) -> str:
    """A decimal in its shortest exact form."""
    return f"{value.normalize():f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litellm-wheel", type=Path)
    parser.add_argument("--date")
    parser.add_argument("--out", type=Path, default=TARGET)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        litellm_map, litellm_version = read_litellm(options.litellm_wheel or download("litellm", Path(folder)))

    date = options.date or kept_date(options.out, genai_version, litellm_version)
    day = datetime.datetime.fromisoformat(date).replace(tzinfo=datetime.UTC)
    catalog = {
        "sources": [
            {"name": "genai-prices", "version": genai_version, "date": date},
            {"name": "litellm", "version": litellm_version, "date": date},
        ],
        "providers": {},
    }
    providers: dict[str, Any] = catalog["providers"]  # type: ignore[assignment]
    notes: Counter[str] = Counter()
    for provider in genai_providers:
        providers[provider.id] = from_genai(provider, notes)
    add_litellm(providers, litellm_map, day, notes)

    # One line for who the providers are, one for each provider's models: what nobody asks for is never parsed.
    lists = ("models", "extra")
    lines: list[object] = [{name: made[name] for name in lists if name in made} for made in providers.values()]
    for made in providers.values():
        for name in lists:
            made.pop(name, None)
    payload = b"\n".join(json.dumps(line, separators=(",", ":")).encode() for line in (catalog, *lines))
    rows = sum(len(line["models"]) for line in lines)  # type: ignore[index]
    extra = sum(len(line.get("extra", ())) for line in lines)  # type: ignore[attr-defined]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(gzip.compress(payload, 9, mtime=0))
    say(f"genai-prices {genai_version}: {rows} models; litellm {litellm_version}: {extra} rows; read on {date}")
    say(f"{options.out.name}: {options.out.stat().st_size:,} bytes ({len(payload):,} unpacked)")
    for note, count in sorted(notes.items()):
        say(f"  {note}: {count}")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def download(package: str, folder: Path) -> Path:
    """The newest wheel of a package, without what it depends on."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "-q", "-d", str(folder)]
    subprocess.run([*command, package], check=True)
    return next(folder.glob(f"{package}-*.whl"))


def read_litellm(wheel: Path) -> tuple[dict[str, Any], str]:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith("model_prices_and_context_window_backup.json"))
        return json.loads(archive.read(name), parse_float=Decimal), wheel.name.split("-")[1]


def kept_date(path: Path, *versions: str) -> str:
    """The day in the present catalog while both versions are the same, else today."""
    if path.exists():
        sources = json.loads(gzip.decompress(path.read_bytes()).splitlines()[0])["sources"]
        if [source["version"] for source in sources] == list(versions):
            return str(sources[0]["date"])
    return datetime.datetime.now(datetime.UTC).date().isoformat()


# --- genai-prices ---------------------------------------------------------------------------------------------


def from_genai(provider: genai.Provider, notes: Counter[str]) -> dict[str, Any]:
    made: dict[str, Any] = {"name": provider.name}
    if provider.model_match:
        made["match"] = clause(provider.model_match)
    if provider.fallback_model_providers:
        made["fallback"] = provider.fallback_model_providers
    made["models"] = [genai_model(provider, model, notes) for model in provider.models]
    return made


def genai_model(provider: genai.Provider, model: genai.ModelInfo, notes: Counter[str]) -> dict[str, Any]:
    made: dict[str, Any] = {"id": model.id}
    match = clause(model.match)
    if match != "=" + model.id.lower():
        made["m"] = match
    listed = model.prices if isinstance(model.prices, list) else [genai.ConditionalPrice(prices=model.prices)]
    conditional = [condition(price.constraint, genai_prices(price.prices, notes)) for price in listed]
    made["p"] = conditional[0]["p"] if len(conditional) == 1 and conditional[0].keys() == {"p"} else conditional
    variants = []
    for variant in model.price_variants or ():
        if prices := genai_prices(variant.prices, notes):
            variants.append({"w": [token(*pair) for pair in sorted(variant.when.items())]})
            variants[-1].update(condition(variant.constraint, prices))
    if variants:
        made["v"] = variants
    if model.context_window:
        made["c"] = model.context_window
    if least := LEAST.get((provider.id, model.id)):
        made["least"] = least
    if not any(positive(price["p"]) for price in conditional):
        if ":free" in model.id:
            made["free"] = 1
            notes["genai: explicitly free"] += 1
        else:
            notes["genai: without a price, kept as unknown"] += 1
    return made


def genai_prices(prices: genai.ModelPrice, notes: Counter[str]) -> Prices:
    made: Prices = {}
    for key, value in prices.__dict__.items():
        unit = UNIT_OF_PRICE_KEY[key]
        if value is None:
            continue
        if unit not in units.DIMENSIONS:
            notes[f"genai: unit that TokenUsage does not count, left out: {unit}"] += 1
            continue
        raw = unit_data[next(k for k, u in unit_data.items() if u["price_key"] == key)]
        assert raw["per"] == units.PER[unit], (key, raw["per"])
        if isinstance(value, genai.TieredPrices):
            made[unit] = [text(value.base), *([tier.start, text(tier.price)] for tier in value.tiers)]
        else:
            made[unit] = text(value)
    return made


def token(key: str, value: str) -> str:
    """How a request's context is named here: service tiers by their value alone."""
    if (key, value) == ("processing", "batch"):
        return "batch"
    if key in ("service_tier", "speed"):
        return value
    return f"{key}:{value}"


def condition(constraint: object, prices: Prices) -> dict[str, Any]:
    if isinstance(constraint, genai.StartDateConstraint):
        return {"s": constraint.start_date.isoformat(), "p": prices}
    if isinstance(constraint, genai.TimeOfDateConstraint):
        ends = (seconds_utc(constraint.start_time), seconds_utc(constraint.end_time))
        return {"t": list(ends), "p": prices}
    assert constraint is None
    return {"p": prices}


def seconds_utc(clock: datetime.time) -> int:
    offset = clock.utcoffset() or datetime.timedelta()
    return (clock.hour * 3600 + clock.minute * 60 + clock.second - int(offset.total_seconds())) % 86_400


SIGNS = {
    genai.ClauseEquals: "=",
    genai.ClauseStartsWith: "^",
    genai.ClauseEndsWith: "$",
    genai.ClauseContains: "*",
    genai.ClauseRegex: "~",
}


def clause(match: Any) -> Any:
    """A clause as a sign and a text; a list of them where one is enough, ["&", ...] where all must match."""
    if isinstance(match, genai.ClauseOr):
        parts: list[Any] = []
        for part in match.or_:
            made = clause(part)
            parts.extend(made if isinstance(made, list) and made[0] != "&" else [made])
        return parts
    if isinstance(match, genai.ClauseAnd):
        return ["&", *(clause(part) for part in match.and_)]
    value = next(iter(match.__dict__.values()))
    return SIGNS[type(match)] + (value if isinstance(match, genai.ClauseRegex) else value.lower())


# --- litellm ---------------------------------------------------------------------------------------------------


def add_litellm(providers: dict[str, Any], rows: dict[str, Any], today: datetime.datetime, notes: Counter[str]) -> None:
    """Keep litellm's row of a model where genai-prices has none, or prices it otherwise, or in fewer tiers."""
    by_id = {provider.id: provider for provider in genai_providers}
    outputs: dict[tuple[str, str], tuple[bool, int]] = {}
    listed = [(key, row) for key, row in rows.items() if isinstance(row.get("litellm_provider"), str)]
    for key, row in sorted(listed, key=lambda item: item[1]["litellm_provider"].startswith(SECOND_CHOICE)):
        if key == "sample_spec":
            continue
        provider_id = names.provider_id(row["litellm_provider"]) or names.plain(row["litellm_provider"])
        name = own_name(key, row["litellm_provider"])
        if SKIPPED_NAMES.search(name) or row.get("mode") in SKIPPED_MODES:
            notes["litellm: routes and modes that no call reports, left out"] += 1
            continue
        known = by_id[provider_id].find_model(name, all_providers=genai_providers) if provider_id in by_id else None
        if known:
            owner = next(p.id for p in genai_providers if any(m is known for m in p.models))
            if owner == provider_id and (output := token_limit(row, "max_output_tokens")):
                outputs[owner, known.id] = max(outputs.get((owner, known.id), (False, 0)), (name == known.id, output))
        made = litellm_model(name, row)
        if not positive_anywhere(made):
            if ":free" in name and not known:
                made = {"id": name, "p": {}, "free": 1}
            else:
                notes["litellm: priced at 0 or not at all, left out"] += 1
                continue
        if known and not adds(known, made, owner == provider_id, today):
            notes["litellm: agrees with genai-prices, left out"] += 1
            continue
        if known:
            notes["litellm: kept beside genai-prices, from which it differs"] += 1
        extra = providers.setdefault(provider_id, {"name": row["litellm_provider"], "models": []}).setdefault(
            "extra", {}
        )
        del made["id"]
        extra.setdefault(name, made)
    for (provider_id, model_id), (_, output) in outputs.items():
        next(m for m in providers[provider_id]["models"] if m["id"] == model_id)["o"] = output
    for provider in providers.values():
        if "extra" in provider:
            provider["extra"] = dict(sorted(provider["extra"].items()))


def own_name(key: str, provider: str) -> str:
    """The model's name without litellm's route before it."""
    name = key.lower()
    head, slash, tail = name.partition("/")
    if slash and (names.provider_id(head) or names.plain(head)) == (
        names.provider_id(provider) or names.plain(provider)
    ):
        return tail
    return name


def litellm_model(name: str, row: dict[str, Any]) -> dict[str, Any]:
    mode = row.get("mode") or "chat"
    base: dict[str, dict[int, Decimal]] = {}
    tiers: dict[str, dict[str, dict[int, Decimal]]] = {}

    def put(field: str, value: object, start: int = 0) -> None:
        match = LITELLM_FIELD.match(field)
        assert match
        unit = LITELLM_RATES.get(match["rate"]) or LITELLM_RATES_BY_MODE.get((match["rate"], mode))
        if unit is None or isinstance(value, bool) or not isinstance(value, int | Decimal):
            return
        if value == 0 and unit not in ZERO_IS_A_PRICE.get(mode, ()):
            return
        start = int(match["start"] or 0) * 1000 or start
        tier = match["tier"]
        into = tiers.setdefault(LITELLM_TIERS.get(tier, tier), {}) if tier else base
        into.setdefault(unit, {}).setdefault(start, Decimal(value) * units.PER[unit])

    for field, value in row.items():
        put(field, value)
    for level in row.get("tiered_pricing") or ():
        if "range" in level:
            for field, value in level.items():
                put(field, value, int(level["range"][0]))
    search = row.get("search_context_cost_per_query")
    if isinstance(search, dict):
        base.setdefault("web_searches", {})[0] = Decimal(search.get("search_context_size_medium", 0)) * 1000

    made: dict[str, Any] = {"id": name, "p": {}}
    for prices in (base, *tiers.values()):
        for kept, dropped in ONE_OF:
            if kept in base:
                prices.pop(dropped, None)
    made["p"] = levels(base)
    if variants := [{"w": [tier], "p": levels(prices, base)} for tier, prices in sorted(tiers.items()) if prices]:
        made["v"] = variants
    if context := token_limit(row, "max_input_tokens"):
        made["c"] = context
    if mode in ("chat", "responses", "completion") and (output := token_limit(row, "max_output_tokens")):
        made["o"] = output
    return made


def levels(prices: dict[str, dict[int, Decimal]], base: dict[str, dict[int, Decimal]] | None = None) -> Prices:
    made: Prices = {}
    for unit in units.DIMENSIONS:
        if not (rates := prices.get(unit)):
            continue
        # A tier that names only its upper price takes the lower one from the standard price.
        first = rates.get(0, (base or {}).get(unit, {}).get(0))
        if first is None:
            continue
        above = [[start, text(rate)] for start, rate in sorted(rates.items()) if start]
        made[unit] = [text(first), *above] if above else text(first)
    return made


def token_limit(row: dict[str, Any], field: str) -> int | None:
    value = row.get(field)
    return int(value) if isinstance(value, int | Decimal) and not isinstance(value, bool) and value > 0 else None


def positive(prices: Prices) -> bool:
    return any(Decimal(rate) > 0 for value in prices.values() for rate in rates_of(value))


def rates_of(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [value[0], *(rate for _, rate in value[1:])]


def positive_anywhere(made: dict[str, Any]) -> bool:
    return positive(made["p"]) or any(positive(variant["p"]) for variant in made.get("v", ()))


def adds(known: genai.ModelInfo, made: dict[str, Any], own: bool, now: datetime.datetime) -> bool:
    prices = genai_prices(known.get_prices(now), Counter())
    if any(unit in made["p"] and prices.keys().isdisjoint(same) for unit, same in COMPLETING.items()):
        return True
    if any(unit in prices and value != prices[unit] for unit, value in made["p"].items()):
        return True
    tiers = {token(*pair) for variant in known.price_variants or () if own for pair in variant.when.items()}
    return any(not set(variant["w"]) <= tiers for variant in made.get("v", ()))


if __name__ == "__main__":
    main()
