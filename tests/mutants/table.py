"""All mutants."""

from __future__ import annotations

from .faults.data import DATA
from .faults.distributed import DISTRIBUTED
from .faults.gate import GATE
from .faults.learned import LEARNED
from .faults.models import MODELS
from .faults.runs import RUNS
from .mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (*LEARNED, *DATA, *RUNS, *MODELS, *DISTRIBUTED, *GATE)
