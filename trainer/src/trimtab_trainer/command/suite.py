"""`trimtab-trainer suite NAME --to URI`: rows of our own, written where Evaluations read them."""

from __future__ import annotations

import argparse
import hashlib

from ..contract import Credentials
from ..evaluate.suites import forgetting
from ..storage import open_store


def run(options: argparse.Namespace) -> int:
    """Write the rows and say where they are.

    Raises:
        TrainerError: storage cannot be written.
    """
    credentials = Credentials(directory=options.secret_directory) if options.secret_directory else None
    data = forgetting.text().encode()
    name = f"{options.name}.jsonl"
    store = open_store(options.to, credentials)
    store.put(name, data)
    rows = len(forgetting.rows())
    print(f"{store.address(name)}: {rows} rows of {len(forgetting.SUITES)} suites, version {forgetting.VERSION}")
    print(f"sha256:{hashlib.sha256(data).hexdigest()}")
    return 0
