"""The group of all commands: names and one line of help each, so that ``--help`` imports none of them."""

from __future__ import annotations

import importlib
from typing import Final

import click

from tokenbudget_otel.version import __version__

COMMANDS: Final = {
    "run": "Run a program as it is, and report what its LLM calls cost.",
    "demo": "Watch real clients being metered, priced and stopped, on a simulated provider.",
    "price": "What a call would cost.",
    "prices": "List the known prices, and where they come from.",
    "budgets": "How budgets stand, in the ledger that programs share.",
    "spool": "What waits to be delivered, on this machine.",
    "doctor": "What is installed here, and what needs attention.",
    "simulate": "Serve a simulated OpenAI and Anthropic API on this machine.",
}
"""Every command. Its module has the same name, and calls it ``command``."""


class Commands(click.Group):
    """A group that imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, most used first."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name, or None."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"tokenbudget_otel.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands in ``--help``, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="tokenbudget %(version)s")
def app() -> None:
    """Know and cap what every LLM call costs, with the OpenTelemetry you already run."""
