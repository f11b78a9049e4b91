"""The way to a ledger that is kept elsewhere: off the event loop, past an outage, holds kept alive."""
