"""The resources of our kinds, by the names that tests call them."""

from __future__ import annotations

from trimtab_operator.runtime.kube import OWN

FINETUNEJOBS, FINETUNESWEEPS = OWN["FineTuneJob"], OWN["FineTuneSweep"]
EVALUATIONS, ADAPTERROLLOUTS, REVIEWS = OWN["Evaluation"], OWN["AdapterRollout"], OWN["Review"]
ADAPTEREXPORTS = OWN["AdapterExport"]
