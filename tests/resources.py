"""The resources of our kinds, by the names that tests call them."""

from __future__ import annotations

from trimtab_operator.runtime.kube import OWN

FINETUNEJOBS, EVALUATIONS, ADAPTERROLLOUTS = (OWN[kind] for kind in ("FineTuneJob", "Evaluation", "AdapterRollout"))
