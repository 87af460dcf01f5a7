"""Student's t and the normal distribution, each as a score of the other (Wallace 1959)."""

from __future__ import annotations

import math

import numpy as np

from .arrays import Array


def normal_score(t: float, freedom: float) -> float:
    """Return the normal score with the tail probability of Student's t (Wallace 1959, to about 1e-3)."""
    size = (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(t * t / freedom))
    return math.copysign(size, t)


def t_score(normal: Array, freedom: Array) -> Array:
    """Return Student's t with the tail probability of a normal score: the inverse of `normal_score`."""
    scaled = normal * (8 * freedom + 3) / (8 * freedom + 1)
    with np.errstate(over="ignore"):
        return np.asarray(np.sqrt(freedom * np.expm1(scaled**2 / freedom)), np.float64)
