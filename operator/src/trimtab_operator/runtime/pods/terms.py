"""The first part of every document's sequence, by namespace: the Lease's transitions, or what had to be begun above
them because pods hold documents of a later term (`domain.adapterrollout.sequence`).

By namespace, because what a pod tells concerns those beside it and nobody else.
"""

from __future__ import annotations

from collections.abc import Callable

from ...domain.adapterrollout.delivery.sequence import Sequence


class Terms:
    """`lease_transitions` returns that of the leader's Lease, the least term."""

    def __init__(self, lease_transitions: Callable[[], int]) -> None:
        self._lease_transitions = lease_transitions
        self._begun: dict[str, int] = {}

    def of(self, namespace: str) -> int:
        return max(self._lease_transitions(), self._begun.get(namespace, 0))

    def note(self, namespace: str, sequence: Sequence) -> None:
        """Go on in the term of a sequence that was decided on."""
        if sequence[0] > self._lease_transitions():
            self._begun[namespace] = max(sequence[0], self._begun.get(namespace, 0))
