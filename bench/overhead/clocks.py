"""What time is. The wall by default; with ``OVERHEAD_CLOCK=cpu`` the processor's, for a machine that others use too."""

from __future__ import annotations

import os
import time

CPU = os.environ.get("OVERHEAD_CLOCK") == "cpu"

clock = time.thread_time if CPU else time.perf_counter
"""Of the thread that asks."""

clock_of_all = time.process_time if CPU else time.perf_counter
"""Of all threads."""
