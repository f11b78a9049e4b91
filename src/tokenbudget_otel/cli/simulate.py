"""`tokenbudget simulate`: the provider simulator as a server."""

from __future__ import annotations

import signal
from typing import Any

import click


@click.command("simulate", short_help="Serve a simulated OpenAI and Anthropic API.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=4010, show_default=True, help="The port; 0 for a free one."
)
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same answers.")
@click.option(
    "--latency", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS", help="Before each answer begins."
)
@click.option(
    "--chunk-latency", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS", help="Between chunks of a stream."
)
def command(host: str, port: int, seed: int, latency: float, chunk_latency: float) -> None:
    """Serve a simulated OpenAI and Anthropic API on this machine, until Ctrl-C.

    It answers real clients with made-up texts and exact usage, and costs nothing. A request's header
    `x-simulate` says how it is answered: docs/simulator.md lists what can be asked for.
    """
    try:
        from tokenbudget_otel.simulator import Behaviour, serve
    except ImportError:
        raise click.ClickException('the simulator needs an extra: pip install "tokenbudget-otel[simulator]"') from None
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        serve(host, port, seed=seed, default=Behaviour(latency_s=latency, chunk_s=chunk_latency), ready=_say)
    except KeyboardInterrupt:  # a second one, while the first was being obeyed
        pass
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host}:{port}: {error.strerror or error}") from None


def _say(simulator: Any) -> None:
    click.echo(
        f"OpenAI     {simulator.openai_url}\n"
        f"Anthropic  {simulator.anthropic_url}\n"
        "\n"
        "Paste this in front of a program, or `export` it:\n"
        f"OPENAI_BASE_URL={simulator.openai_url} ANTHROPIC_BASE_URL={simulator.anthropic_url} "
        f"TOKENBUDGET_HOSTS={simulator.openai_url}=openai OPENAI_API_KEY=none ANTHROPIC_API_KEY=none\n"
        "\n"
        "Ctrl-C ends it."
    )


def _interrupt(_number: int, _frame: Any) -> None:
    raise KeyboardInterrupt
