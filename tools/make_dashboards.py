"""Write the recording rules for Prometheus and the dashboards for Grafana.

    python tools/make_dashboards.py

What they are is in tools/dashboards/. A test holds the files to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from dashboards.contents import DASHBOARDS
from dashboards.recorded import recording_rules

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "collector-config"


def files() -> Iterator[tuple[Path, str]]:
    """Every file, and what has to be in it."""
    yield CONFIG / "prometheus" / "rules" / "tokenbudget-growth.yml", recording_rules()
    for name, board in DASHBOARDS.items():
        path = CONFIG / "grafana" / "dashboards" / f"tokenbudget-{name}.json"
        yield path, json.dumps(board, indent=2) + "\n"


def main() -> None:
    for path, text in files():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
