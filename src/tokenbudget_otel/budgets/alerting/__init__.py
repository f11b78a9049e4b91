"""Alerts at shares of a limit: declared, looked for, delivered."""
