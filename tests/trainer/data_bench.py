"""The prepare stage on a folder, with rows that a test writes and settings that it changes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab_trainer.contract import RunConfig
from trimtab_trainer.data import View, load_view
from trimtab_trainer.prepare import Outcome, prepare
from trimtab_trainer.report import Report
from trimtab_trainer.storage import Store, open_store
from trimtab_trainer.storage.layout import rows_prefix, view_prefix

from tests.trainer.tiny import write_rows


def said(question: str, answer: str, **more: Any) -> dict[str, Any]:
    """Return a chat row of one question and its answer."""
    return conversation(question, answer) | more


def conversation(*turns: str) -> dict[str, Any]:
    """Return a chat row in which user and assistant alternate."""
    return {"messages": [{"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(turns)]}


@dataclass
class DataBench:
    """A base model, a folder of data, and the sections of a run that a test may change."""

    base: Path
    folder: Path
    dataset: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    runs: int = 0

    def put(self, path: str, rows: list[dict[str, Any]]) -> str:
        """Write rows to a file below the folder; return the uri of its folder."""
        return write_rows(self.folder / path, rows).parent.as_uri() + "/"

    @property
    def output(self) -> Store:
        return open_store((self.folder / "out").as_uri(), None)

    @property
    def config(self) -> RunConfig:
        return RunConfig.model_validate(
            {
                "baseModel": {"uri": self.base.as_uri()},
                "dataset": {"training": {"uri": (self.folder / "data").as_uri() + "/"}} | self.dataset,
                "output": {"uri": self.output.uri},
                "training": {"maxSequenceLength": 256, "batchSize": 4} | self.training,
            }
        )

    def prepare(self) -> Outcome:
        self.runs += 1
        return prepare(self.config, self.folder / f"scratch{self.runs}", Report())

    def view(self, outcome: Outcome) -> View:
        self.runs += 1
        return load_view(self.output, outcome.prepared.view_digest, self.folder / f"scratch{self.runs}")

    def summary(self, outcome: Outcome) -> dict[str, Any]:
        """Return what the view's manifest says."""
        found: dict[str, Any] = self._json(f"{view_prefix(outcome.prepared.view_digest)}/MANIFEST.json")["summary"]
        return found

    def findings(self, outcome: Outcome) -> dict[str, Any]:
        """Return audit.json of the rows."""
        return self._json(f"{rows_prefix(outcome.prepared.rows_digest)}/audit.json")

    def audit(self) -> dict[str, Any]:
        """Return audit.json of the only view."""
        (path,) = (info.path for info in self.output.list("data/audits/") if info.path.endswith("/audit.json"))
        return self._json(path)

    def _json(self, path: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.output.read(path))
        return value
