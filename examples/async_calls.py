"""A hundred concurrent calls under one budget, which holds: in `worst_case` mode each call reserves an upper bound of
its cost before it is sent, and gives back what it did not use."""

import asyncio

import anthropic

import tokenbudget_otel as tb

tb.instrument()


async def main() -> None:
    client = anthropic.AsyncAnthropic(max_retries=0)

    async def ask(number: int) -> bool:
        try:
            await client.messages.create(
                model="claude-haiku-4-5",
                max_tokens=200,
                messages=[{"role": "user", "content": f"What is special about the number {number}?"}],
            )
        except tb.BudgetExceeded as refusal:
            if number == 99:
                print(refusal)
            return False
        return True

    with tb.budget(max_cost_usd="0.05", mode="worst_case", name="numbers") as run:
        answered = await asyncio.gather(*(ask(number) for number in range(100)))
    print(f"{sum(answered)} answered, {answered.count(False)} refused, ${run.spent_usd} of $0.05 spent")
    assert run.spent_usd <= 0.05


asyncio.run(main())
