"""The ledgers there are, one for each kind of place: memory, a SQLite file, Redis."""
