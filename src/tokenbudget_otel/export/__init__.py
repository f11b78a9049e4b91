"""The room for delivery: exporters that keep on disk what cannot be sent now, and send it later, once.

Empty so far. Spans and metrics leave through whatever exporters the program has set up.
"""
