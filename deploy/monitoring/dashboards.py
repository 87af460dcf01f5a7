"""Write or check the dashboards in the chart.

python -m deploy.monitoring.dashboards --write    # make generate
python -m deploy.monitoring.dashboards --check    # fails when a file is not fresh
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .evaluation import EVALUATION
from .grafana import render
from .serving import SERVING
from .training import TRAINING

DASHBOARDS = (TRAINING, EVALUATION, SERVING)
FOLDER = Path(__file__).parents[2] / "charts/trimtab/dashboards"


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.monitoring.dashboards", description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="write the files")
    action.add_argument("--check", action="store_true", help="fail when a file is not fresh")
    options = parser.parse_args(arguments)
    stale = 0
    for dashboard in DASHBOARDS:
        file, text = FOLDER / f"{dashboard.name}.json", render(dashboard)
        if file.exists() and file.read_text() == text:
            continue
        stale += 1
        if options.write:
            FOLDER.mkdir(exist_ok=True)
            file.write_text(text)
            print(f"wrote {file.name}")
        else:
            print(f"{file.name} is not fresh: run `make generate`", file=sys.stderr)
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
