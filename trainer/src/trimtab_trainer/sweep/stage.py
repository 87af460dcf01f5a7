"""The `report` stage: the page of a search and its trials, in the output beside what the trials published. No torch."""

from __future__ import annotations

from ..contract.sweeps.record import SweepRecord
from ..errors import SettingsInvalid
from ..report import Report
from ..storage import open_store
from ..storage.layout import sweep_prefix
from .files import PAGE, write


def write_report(record: SweepRecord, report: Report) -> str:
    """Write both files, over those that were written before; return the address of the page.

    Raises:
        SettingsInvalid: the record says of no output, or that cannot be written to.
        StorageFailed: the storage does not answer.
    """
    if record.output is None:
        raise SettingsInvalid("the record of the sweep has no output; set output.uri")
    store = open_store(record.output.uri, record.output.credentials)
    prefix = sweep_prefix(record.run.name, record.run.uid)
    write(record, lambda name, data: store.put(f"{prefix}/{name}", data))
    page = store.address(f"{prefix}/{PAGE}")
    report("published", page=page, trials=len(record.trials))
    return page
