"""Instrumentors: one file per provider SDK, and one engine shared by all."""
