"""A web application in which every tenant has a budget of its own.

    uvicorn --app-dir examples fastapi_tenants:app
    curl -H 'x-tenant: acme' 'http://127.0.0.1:8000/ask?question=hello'

A tenant that has used up its one cent of the day gets 402 Payment Required, with the moment at which it may ask
again; the others go on.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import openai
from fastapi import FastAPI, Header, Request
from fastapi.responses import JSONResponse

import tokenbudget_otel as tb

tb.instrument(budgets=[tb.Budget(limit_usd="0.01", window="day", per="tenant", name="tenant-day")])


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with openai.AsyncOpenAI() as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


@app.exception_handler(tb.BudgetExceeded)
async def over_budget(_request: Request, refusal: tb.BudgetExceeded) -> JSONResponse:
    resets_at = refusal.resets_at.isoformat() if refusal.resets_at else None
    return JSONResponse({"error": str(refusal), "resets_at": resets_at}, status_code=402)


@app.get("/ask")
async def ask(request: Request, question: str, x_tenant: str = Header()) -> dict[str, str | None]:
    with tb.tags(tenant=x_tenant, feature="ask"):
        answer = await request.app.state.client.chat.completions.create(
            model="gpt-5", max_completion_tokens=500, messages=[{"role": "user", "content": question}]
        )
    return {"answer": answer.choices[0].message.content}


@app.get("/spend")
async def spend() -> dict[str, str]:
    return {tenant: f"{totals.cost_usd:f}" for tenant, totals in tb.usage(by="tenant").items()}
