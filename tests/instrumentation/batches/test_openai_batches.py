"""OpenAI's batches: whichever way their usage is learned, they are charged once, at the price of batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from batch_jobs import (
    MODEL,
    bare,
    charged_once,
    costs,
    done_elsewhere,
    each,
    jsonl,
    lines_of,
    nothing_charged,
    settled,
    start,
    upload,
    wait,
)
from opentelemetry.sdk.trace import TracerProvider

import tokenbudget_otel as tb
from tokenbudget_otel.instrumentation.streams import LinesWatcher
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.processor import TokenBudgetSpanProcessor
from tokenbudget_otel.simulator import Behaviour

# --- the batch itself tells --------------------------------------------------------------------------------------


async def test_charged_by_the_retrieval_that_finds_it_done(client, sim, instrumented, meter):
    sim.then(Behaviour(), Behaviour(polls=3))
    batch = await start(client, lines_of(4))
    statuses = [(await settled(client.batches.retrieve(batch.id))).status for _ in range(5)]
    assert statuses == ["in_progress", "in_progress", *["completed"] * 3]
    charged_once(meter, sim)
    (row,) = meter.totals.rows()
    assert (row["model"], row["operation"], row["calls"]) == (MODEL, "chat", 4)

    spans = instrumented.spans()
    assert [span.name for span in spans] == ["create_batch", *["fetch_batch"] * 5]
    assert all(span.attributes["tokenbudget.batch.id"] == batch.id for span in spans)
    # The cost is on one span of all, and with it what it is the cost of.
    assert costs(spans) == [meter.totals.get().nano_usd / 1e9]
    first = spans[3].attributes
    assert first["tokenbudget.batch.results"] == 4
    assert first["gen_ai.response.model"] == MODEL
    assert first["gen_ai.response.status"] == "completed"
    assert first["gen_ai.usage.output_tokens"] == meter.totals.get().usage.output_tokens
    assert first["tokenbudget.cost.part.input"] > 0
    assert sum(point.value for point in instrumented.metrics()["gen_ai.client.operation.cost"]) == costs(spans)[0]


async def test_half_the_price(client, sim, instrumented, meter):
    sim.then(Behaviour(), Behaviour(input_tokens=1000, output_tokens=100))
    await wait(client, (await start(client, lines_of(1))).id)
    usage = tb.TokenUsage(input_tokens=1000, output_tokens=100)
    now = tb.calculate_cost(MODEL, usage, "openai")
    assert meter.totals.get().nano_usd == now.nano_usd / 2


@pytest.mark.parametrize("end", ["expired", "cancelled"])
async def test_a_batch_that_ends_early_has_used_something(end, client, sim, instrumented, meter):
    sim.then(Behaviour(), Behaviour(outcome="incomplete" if end == "expired" else "completed"))
    batch = await start(client, lines_of(5))
    if end == "cancelled":
        assert (await settled(client.batches.cancel(batch.id))).status == "cancelling"
        nothing_charged(meter)
    batch = await wait(client, batch.id)
    assert batch.status == end
    assert len(sim.billed) == 3
    charged_once(meter, sim)
    await settled(client.files.content(batch.output_file_id))
    if batch.error_file_id:
        await settled(client.files.content(batch.error_file_id))
    charged_once(meter, sim)


async def test_a_batch_that_fails_costs_nothing(client, sim, instrumented, meter):
    sim.then(Behaviour(), Behaviour(outcome="failed"))
    batch = await wait(client, (await start(client, lines_of(2))).id)
    assert batch.status == "failed"
    assert sim.billed == []
    nothing_charged(meter)


async def test_the_list_charges_what_this_process_made_or_waited_for(client, sim, instrumented, meter):
    # Another process made these; a list tells of everybody's, and of last month's.
    await done_elsewhere(client, lines_of(2))
    others = len(sim.billed)
    with bare(client):
        ours = await start(client, lines_of(3))
    await settled(client.batches.retrieve(ours.id))
    with bare(client):
        await wait(client, ours.id)
    for _ in range(2):
        listed = [batch.id async for batch in each(client.batches.list())]
        assert len(listed) == 2
    assert meter.totals.get().calls == len(sim.billed) - others == 3
    spans = instrumented.spans()
    assert [("gen_ai.usage.cost" in span.attributes) for span in spans] == [False, True]


async def test_made_elsewhere_and_retrieved_here(client, sim, instrumented, meter):
    batch = await done_elsewhere(client, lines_of(3))
    for _ in range(2):
        await settled(client.batches.retrieve(batch.id))
    charged_once(meter, sim)


async def raw(client: Any, batch_id: str) -> None:
    (await settled(client.batches.with_raw_response.retrieve(batch_id))).parse()


async def streaming(client: Any, batch_id: str) -> None:
    manager = client.batches.with_streaming_response.retrieve(batch_id)
    if hasattr(manager, "__aenter__"):
        async with manager as response:
            await response.parse()
    else:
        with manager as response:
            response.parse()


@pytest.mark.parametrize("retrieve", [raw, streaming], ids=lambda way: way.__name__)
async def test_any_way_of_retrieving(retrieve, client, sim, instrumented, meter):
    batch = await done_elsewhere(client, lines_of(2))
    for _ in range(2):
        await retrieve(client, batch.id)
    charged_once(meter, sim)


# --- the output file tells ---------------------------------------------------------------------------------------


async def text_of(client: Any, file: str, _folder: Path) -> None:
    assert (await settled(client.files.content(file))).text


async def bytes_of(client: Any, file: str, _folder: Path) -> None:
    assert (await settled(client.files.content(file))).content


async def lines_read(client: Any, file: str, _folder: Path) -> None:
    assert list((await settled(client.files.content(file))).iter_lines())


async def written(client: Any, file: str, folder: Path) -> None:
    (await settled(client.files.content(file))).write_to_file(folder / "out.jsonl")
    assert (folder / "out.jsonl").stat().st_size


async def raw_content(client: Any, file: str, _folder: Path) -> None:
    assert (await settled(client.files.with_raw_response.content(file))).content


async def streamed_lines(client: Any, file: str, _folder: Path) -> None:
    manager = client.files.with_streaming_response.content(file)
    if hasattr(manager, "__aenter__"):
        async with manager as response:
            assert [line async for line in response.iter_lines()]
    else:
        with manager as response:
            assert list(response.iter_lines())


async def streamed_to_file(client: Any, file: str, folder: Path) -> None:
    manager = client.files.with_streaming_response.content(file)
    if hasattr(manager, "__aenter__"):
        async with manager as response:
            await response.stream_to_file(folder / "out.jsonl")
    else:
        with manager as response:
            response.stream_to_file(folder / "out.jsonl")


WAYS = [text_of, bytes_of, lines_read, written, raw_content, streamed_lines, streamed_to_file]


@pytest.mark.parametrize("download", WAYS, ids=lambda way: way.__name__)
async def test_any_way_of_downloading(download, client, sim, instrumented, meter, tmp_path):
    batch = await done_elsewhere(client, lines_of(3))
    for _ in range(2):
        sim.default = Behaviour(split=97, gzip=download is streamed_lines)
        await download(client, batch.output_file_id, tmp_path)
    charged_once(meter, sim)
    # The download that told has a span; those that were only downloads have none.
    (span,) = instrumented.spans()
    assert span.name == "fetch_batch"
    assert span.attributes["gen_ai.provider.name"] == "openai"
    assert span.attributes["tokenbudget.batch.results"] == 3
    assert span.attributes["gen_ai.response.model"] == MODEL


async def test_azure_tells_in_the_file_only(clients, mode, sim, instrumented, meter):
    client = clients("azure", mode)
    batch = await wait(client, (await start(client, lines_of(3, url="/chat/completions"))).id)
    nothing_charged(meter)
    await settled(client.files.content(batch.output_file_id))
    charged_once(meter, sim, "azure.ai.openai")
    assert instrumented.spans()[-1].attributes["tokenbudget.batch.id"] == batch.id


async def test_half_a_download_is_no_count(client, sim, instrumented, meter):
    batch = await done_elsewhere(client, lines_of(40))
    sim.default = Behaviour(split=500)
    manager = client.files.with_streaming_response.content(batch.output_file_id)
    if hasattr(manager, "__aenter__"):
        async with manager as response:
            async for _ in response.iter_lines():
                break
    else:
        with manager as response:
            next(response.iter_lines())
    nothing_charged(meter)
    assert instrumented.spans() == []
    await settled(client.files.content(batch.output_file_id))
    charged_once(meter, sim)


ENDPOINTS = {
    "/v1/chat/completions": (MODEL, "chat"),
    "/v1/responses": ("gpt-5", "chat"),
    "/v1/embeddings": ("text-embedding-3-small", "embeddings"),
}


@pytest.mark.parametrize("way", ["retrieve", "content"])
@pytest.mark.parametrize("url", ENDPOINTS)
async def test_endpoints(url, way, client, sim, instrumented, meter):
    model, operation = ENDPOINTS[url]
    batch = await done_elsewhere(client, lines_of(3, url=url, model=model))
    if way == "retrieve":
        await settled(client.batches.retrieve(batch.id))
    await settled(client.files.content(batch.output_file_id))
    charged_once(meter, sim)
    (row,) = meter.totals.rows()
    assert (row["model"], row["operation"], row["calls"]) == (model, operation, 3)


@pytest.mark.parametrize("first", ["retrieve", "content"])
async def test_tools_are_told_by_the_file_alone(first, client, sim, instrumented, meter):
    sim.default = Behaviour(web_searches=2, output_tokens=50)
    batch = await done_elsewhere(client, lines_of(2, url="/v1/responses", model="gpt-5"))
    sim.default = Behaviour()
    if first == "retrieve":
        await settled(client.batches.retrieve(batch.id))
        assert meter.totals.get().usage.web_searches is None
    for _ in range(2):
        await settled(client.files.content(batch.output_file_id))
        await settled(client.batches.retrieve(batch.id))
    totals = meter.totals.get()
    assert totals.usage.web_searches == 4
    assert (totals.calls, totals.usage.output_tokens) == (2, 100)
    assert sum(costs(instrumented.spans())) == pytest.approx(totals.nano_usd / 1e9)


async def test_several_models_in_one_file(client, sim, instrumented, meter):
    lines = lines_of(2) + lines_of(3, model="gpt-4o")
    with bare(client):
        batch = await wait(client, (await start(client, lines)).id)
    await settled(client.files.content(batch.output_file_id))
    await settled(client.batches.retrieve(batch.id))
    by_model = meter.totals.get(by="model")
    assert {model: totals.calls for model, totals in by_model.items()} == {MODEL: 2, "gpt-4o": 3}
    assert meter.totals.get().usage.total_tokens == sum(bill.usage.total_tokens for bill in sim.billed)
    span = next(span for span in instrumented.spans() if "gen_ai.usage.cost" in span.attributes)
    assert span.attributes["gen_ai.usage.cost"] == pytest.approx(meter.totals.get().nano_usd / 1e9)
    assert "gen_ai.response.model" not in span.attributes
    assert "tokenbudget.cost.model" not in span.attributes
    assert span.attributes["tokenbudget.batch.results"] == 5


async def test_long_prompts_in_a_sum(client, sim, instrumented, meter):
    """gpt-5.4 is dearer beyond 272,000 tokens of prompt, which no line here has, and the sum of all does."""
    sim.default = Behaviour(input_tokens=100_000, output_tokens=10)
    batch = await done_elsewhere(client, lines_of(4, model="gpt-5.4"))
    sim.default = Behaviour()
    other = Meter()
    tb.wrap(client, meter=other)
    await settled(client.files.content(batch.output_file_id))
    tb.unwrap(client)
    each_line = tb.TokenUsage(input_tokens=100_000, output_tokens=10)
    exact = 4 * other.prices.cost("openai", "gpt-5.4", each_line, batch=True).nano_usd
    assert other.totals.get().nano_usd == exact
    assert other.totals.get().unpriced_calls == 0
    # The batch's own sum does not say how long its prompts were: the likely price, and that it is not certain.
    await settled(client.batches.retrieve(batch.id))
    assert meter.totals.get().nano_usd == exact
    assert meter.totals.get().unpriced_calls == 4
    assert costs(instrumented.spans()) == [exact / 1e9]


# --- files that are none, and lines that are damaged ---------------------------------------------------------------

CHAT = {"object": "chat.completion", "model": MODEL, "usage": {"prompt_tokens": 10, "completion_tokens": 5}}


def answered(body: Any, status: Any = 200, **more: Any) -> dict[str, Any]:
    return {"id": "batch_req_1", "custom_id": "a", "response": {"status_code": status, "body": body}, **more}


OTHER_FILES = {
    "a film": b"\0\x01\x02\n" * 4_000,
    "nothing": b"",
    "a line without an end": b"x" * 100_000,
    "fine-tuning": jsonl([{"messages": [{"role": "user", "content": '{"id": "batch_req_"}'}]}]),
    "the input of a batch": jsonl(lines_of(3)),
    "an error file": jsonl([{"id": "batch_req_1", "custom_id": "a", "response": None, "error": {"code": "late"}}]),
    "refused lines": jsonl([answered({"error": {"message": "No."}}, 400)]),
    "something of somebody's": jsonl([{"custom_id": "a", "usage": {"prompt_tokens": 5}}, answered(CHAT)]),
}


async def test_other_files_cost_nothing(client, sim, instrumented, meter):
    for name, content in OTHER_FILES.items():
        file = await upload(client, content, "assistants")
        await settled(client.files.content(file))
        if content:
            await streamed_lines(client, file, Path())
        assert meter.totals.get().calls == 0, name
        assert instrumented.exporter.get_finished_spans() == (), name


async def test_a_file_is_not_kept_as_it_goes_by():
    class Nothing:
        def wants(self, _beginning: bytes) -> bool:
            return self.wanted

        def line(self, _data: bytes) -> bool:
            return True

    for wanted in (False, True):
        reader: Any = Nothing()
        reader.wanted = wanted
        watcher = LinesWatcher(reader)
        for _ in range(100):
            watcher.chunk(b'{"id": "batch_req_' + b"x" * 10_000 + b"\n" + b"y" * 100)
            assert len(watcher._carry) <= 100
    # Without an end of line, and nothing that is looked for: not a byte is kept.
    reader.wanted = False
    watcher = LinesWatcher(reader)
    for _ in range(10):
        watcher.chunk(b"x" * 10_000)
    assert len(watcher._carry) == 0


async def test_left_after_the_last_line(clients, sim, instrumented, meter):
    """A loop with a ``break`` that saw every byte has seen the whole file."""
    client = clients()
    batch = await done_elsewhere(client, lines_of(3))
    with client.files.with_streaming_response.content(batch.output_file_id) as response:
        lines = response.iter_lines()
        assert len([next(lines) for _ in range(3)]) == 3
    charged_once(meter, sim)


async def test_damaged_lines_are_counted_and_nothing_is_made_up(client, sim, instrumented, meter):
    good = json.dumps(answered(CHAT)).encode()
    content = b"\n".join(
        [
            good,
            good[:40],  # broken off
            json.dumps(answered({"object": "chat.completion", "model": MODEL})).encode(),  # without usage
            json.dumps(answered(["odd"])).encode(),
            json.dumps(answered({**CHAT, "usage": {"prompt_tokens": "many", "completion_tokens": -1}})).encode(),
            b"[" * 10_000,
            b"\xff\xfe",
            json.dumps(answered({**CHAT, "model": "of-tomorrow"})).encode(),
            good,
        ]
    )
    file = await upload(client, content, "assistants")
    for _ in range(2):
        await settled(client.files.content(file))
    totals = meter.totals.get()
    assert totals.calls == 9
    assert totals.unpriced_calls == 7
    assert (totals.usage.input_tokens, totals.usage.output_tokens) == (30, 15)
    usage = tb.TokenUsage(input_tokens=20, output_tokens=10)
    assert totals.nano_usd == meter.prices.cost("openai", MODEL, usage, batch=True).nano_usd
    span = instrumented.span()
    assert span.attributes["tokenbudget.cost.state"] == "partial"
    assert span.attributes["gen_ai.usage.input_tokens"] == 30


async def test_a_damaged_batch_never_raises(client, sim, instrumented, meter):
    for seed in range(15):
        batch = await done_elsewhere(client, lines_of(2))
        before = meter.totals.get().calls
        sim.then(Behaviour(damage=seed))
        await settled(client.batches.retrieve(batch.id))
        await settled(client.files.content(batch.output_file_id))
        # Where the id of the file is what was damaged, nobody can know that it is the same.
        assert 1 <= meter.totals.get().calls - before <= 4, seed


FAILURES = {
    "not found": (Behaviour(status=404), openai.NotFoundError),
    "server error": (Behaviour(status=500), openai.InternalServerError),
    "dropped": (Behaviour(drop=True), openai.APIConnectionError),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_look_that_fails_costs_nothing(failure, client, sim, instrumented, meter):
    behaviour, error = FAILURES[failure]
    batch = await done_elsewhere(client, lines_of(2))
    for look, argument in ((client.batches.retrieve, batch.id), (client.files.content, batch.output_file_id)):
        sim.then(behaviour)
        with pytest.raises(error):
            await settled(look(argument))
    nothing_charged(meter)
    assert [span.attributes["tokenbudget.call.outcome"] for span in instrumented.spans()] == ["failed"]
    await settled(client.files.content(batch.output_file_id))
    charged_once(meter, sim)


# --- budgets and tags --------------------------------------------------------------------------------------------


async def test_a_budget_that_is_used_up_refuses_a_batch(client, sim, instrumented, meter):
    meter.enforcer.add(tb.Budget(limit_tokens=1_000, name="small"))
    source = await upload(client, jsonl(lines_of(2)))

    async def create() -> Any:
        return await settled(
            client.batches.create(input_file_id=source, endpoint="/v1/chat/completions", completion_window="24h")
        )

    sim.then(Behaviour(input_tokens=400, output_tokens=100))
    batch = await create()  # there is room, for what nobody knows yet
    (status,) = meter.enforcer.status()
    assert (status.spent_tokens, status.reserved_tokens) == (0, 0)
    await wait(client, batch.id)
    (status,) = meter.enforcer.status()
    assert status.spent_tokens == 1_000

    sent = len(sim.requests)
    with pytest.raises(tb.BudgetExceeded):
        await create()
    assert len(sim.requests) == sent
    assert instrumented.spans()[-1].attributes["tokenbudget.call.outcome"] == "refused"
    # To look is free.
    await settled(client.batches.retrieve(batch.id))
    await settled(client.batches.cancel(batch.id))


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_batch_that_could_not_be_made_reserves_nothing(failure, client, sim, instrumented, meter):
    behaviour, error = FAILURES[failure]
    meter.enforcer.add(tb.Budget(limit_calls=1, name="one"))
    sim.then(Behaviour(), behaviour)
    with pytest.raises(error):
        await start(client, lines_of(1))
    (status,) = meter.enforcer.status()
    assert (status.spent_calls, status.reserved_calls) == (0, 0)
    nothing_charged(meter)
    await start(client, lines_of(1))


async def test_results_go_to_whoever_asked_for_the_work(client, sim, instrumented, meter):
    meter.enforcer.add(tb.Budget(limit_usd=5, name="tenants", per=("tenant",)))
    with tb.tags(tenant="acme"):
        batch = await start(client, lines_of(2))
    with tb.tags(tenant="operations", job="poller"), tb.budget(max_tokens=10**6) as run:
        await wait(client, batch.id)
    (row,) = meter.totals.rows()
    assert row["tags"] == {"tenant": "acme", "job": "poller"}
    assert run.spent_tokens == meter.totals.get().usage.total_tokens
    (status,) = (status for status in meter.enforcer.status() if status.budget == "tenants")
    assert status.scope == {"tenant": "acme"}


async def test_results_of_others_go_to_whoever_retrieves_them(client, sim, instrumented, meter):
    batch = await done_elsewhere(client, lines_of(2))
    with tb.tags(tenant="acme"):
        await settled(client.batches.retrieve(batch.id))
    assert meter.totals.get(by="tenant")["acme"].calls == 2


async def test_the_tags_of_the_file(clients, mode, sim, instrumented, meter):
    client = clients("azure", mode)
    with tb.tags(tenant="acme"):
        batch = await start(client, lines_of(2, url="/chat/completions"))
    batch = await wait(client, batch.id)
    await settled(client.files.content(batch.output_file_id))
    assert meter.totals.get(by="tenant")["acme"].calls == 2


# --- nothing is counted twice ------------------------------------------------------------------------------------


async def test_however_many_doors_lead_to_a_meter(clients, mode, sim, telemetry, meter):
    maker = clients("openai", mode)
    batch = await done_elsewhere(maker, lines_of(2))
    for _ in range(2):
        client = tb.wrap(clients("openai", mode))
        await settled(client.batches.retrieve(batch.id))
        await settled(client.files.content(batch.output_file_id))
    for _ in range(2):
        tb.instrument(telemetry.tracer_provider)
        await settled(maker.batches.retrieve(batch.id))
        tb.uninstrument()
    charged_once(meter, sim)


async def test_the_processor_leaves_it_alone(client, sim, meter, telemetry):
    provider = TracerProvider()
    provider.add_span_processor(TokenBudgetSpanProcessor(meter))
    tb.instrument(provider)
    try:
        batch = await wait(client, (await start(client, lines_of(2))).id)
        await settled(client.files.content(batch.output_file_id))
    finally:
        tb.uninstrument()
    charged_once(meter, sim)


async def test_what_the_program_sees(client, sim, instrumented):
    made = await done_elsewhere(client, lines_of(2))

    async def run() -> Any:
        batch = await settled(client.batches.retrieve(made.id))
        content = await settled(client.files.content(batch.output_file_id))
        listed = [batch async for batch in each(client.batches.list())]
        seen = [one.model_dump(exclude_unset=True) for one in (batch, *listed)]
        return type(batch), seen, type(content), content.text

    with bare(client):
        without = await run()
    assert await run() == without
