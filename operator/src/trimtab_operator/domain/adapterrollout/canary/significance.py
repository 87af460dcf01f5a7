"""Whether a difference is more than chance: two tests over sums, and how the chance of a false alarm is spent."""

from __future__ import annotations

from math import erfc, exp, lgamma, sqrt

from .counts import Times

AT_THE_END = 0.9
"""Part of the chance of a false alarm that is spent by the end of the window; the rest is for a canary that stays."""


def more_often(new: int, of_new: int, old: int, of_old: int) -> float:
    """Return the chance of `new` or more events among `of_new`, if they are no more likely than among the old.

    Fisher's exact test, one-sided: the upper tail of the hypergeometric distribution, given that `new + old` events
    fell on `of_new + of_old` (R. A. Fisher, "The logic of inductive inference", J. R. Stat. Soc. 98 (1935), p. 39-82).
    It keeps its level at every rate and size, and stays below it where events are rare.
    """
    events, everyone = new + old, of_new + of_old
    if new <= 0 or new * of_old <= old * of_new:
        return 1.0  # no more often than the old: nothing to prove, and the tail is about a half or more
    term = exp(
        _log_choose(of_new, new) + _log_choose(of_old, old) - _log_choose(everyone, events)
    )  # the first of the tail, above the mode: those after it only become smaller
    tail, x = 0.0, new
    while term > tail * 1e-12:
        tail += term
        if x >= min(events, of_new):
            break
        term *= (of_new - x) * (events - x) / ((x + 1) * (of_old - events + x + 1))
        x += 1
    return min(1.0, tail)


def slower(new: Times, old: Times) -> float:
    """Return the chance of a difference like this or larger, if the new times are no longer than the old.

    Welch's t test on logarithms, one-sided: B. L. Welch, "The generalization of 'Student's' problem when several
    different population variances are involved", Biometrika 34 (1947), with the degrees of freedom of its equation
    (28). Student's tail by a normal one: Abramowitz and Stegun, Handbook of Mathematical Functions, equation 26.7.8.
    """
    a, b = new.variance / new.n, old.variance / old.n
    if a + b <= 0:
        return 1.0 if new.mean <= old.mean else 0.0
    t = (new.mean - old.mean) / sqrt(a + b)
    if t <= 0:
        return 1.0
    freedom = (a + b) ** 2 / (a**2 / (new.n - 1) + b**2 / (old.n - 1))
    z = t * (1 - 1 / (4 * freedom)) / sqrt(1 + t**2 / (2 * freedom))
    return erfc(z / sqrt(2)) / 2


def spent(time: float) -> float:
    """Return which part of the chance of a false alarm may be spent by a time, the window's length being 1.

    K. K. G. Lan and D. L. DeMets, "Discrete sequential boundaries for clinical trials", Biometrika 70 (1983): looks at
    any times may spend what the function grew by since the look before. Here each look's test has that as its level, so
    all of them together err no more often than their sum (Bonferroni), however they depend. With the square of the
    time, of the family t^rho of K. Kim and D. L. DeMets, Biometrika 74 (1987), the last looks, which see most, have
    most of it. Never more than 1, however long a canary stays.
    """
    if time <= 1:
        return AT_THE_END * max(0.0, time) ** 2
    return AT_THE_END + (1 - AT_THE_END) * (1 - 1 / time)


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
