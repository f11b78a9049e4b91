"""The command line, ``tokenbudget``. One module for each command, imported when it is called."""

from __future__ import annotations


def main() -> None:
    """What the console script ``tokenbudget`` runs."""
    from tokenbudget_otel.cli.app import app

    app(prog_name="tokenbudget")
