"""The types of arrays; shapes are told where they are used: B resamples, u units, k statistics, r figures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
