"""The simulator's own paths, for clients in other processes: its books, its queue, a fresh start."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tokenbudget_otel.simulator.behaviour import Behaviour
from tokenbudget_otel.simulator.state import State


def routes(state: State) -> list[Route]:
    """``/_simulator/billed``, ``/_simulator/then``, ``/_simulator/default`` and ``/_simulator/reset``."""

    async def billed(_request: Request) -> Response:
        with state.lock:
            entries = list(state.billed)
        return JSONResponse([dataclasses.asdict(entry) for entry in entries])

    async def then(request: Request) -> Response:
        return _told(await request.body(), state.then)

    async def default(request: Request) -> Response:
        def change(behaviours: tuple[Behaviour, ...]) -> None:
            state.default = behaviours[-1] if behaviours else Behaviour()

        return _told(await request.body(), change)

    async def reset(_request: Request) -> Response:
        state.reset()
        return Response(status_code=204)

    return [
        Route("/billed", billed, methods=["GET"]),
        Route("/then", then, methods=["POST"]),
        Route("/default", default, methods=["POST"]),
        Route("/reset", reset, methods=["POST"]),
    ]


def _told(body: bytes, use: Any) -> Response:
    """Use the behaviours of a body, one object or a list of them."""
    try:
        values = json.loads(body)
        values = values if isinstance(values, list) else [values]
        use(tuple(Behaviour.from_mapping(value) for value in values))
    except (AttributeError, TypeError, ValueError) as error:
        return JSONResponse({"error": str(error)}, status_code=400)
    return Response(status_code=204)
