"""Packing: several rows in one sequence, which attend only to themselves because positions restart at each row."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]


def pack(lengths: Int64, capacity: int) -> list[list[int]]:
    """Return which rows share a sequence: best-fit decreasing, deterministic.

    Each row, the longest first, goes into the fullest sequence that still has room. Sequences are kept by the room
    they have left, and a bit set of the rooms in use finds the best one without searching.
    """
    sequences: list[list[int]] = []
    by_room: dict[int, list[int]] = {}
    rooms = 0
    for index in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[index])
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            sequence = by_room[room].pop()
            if not by_room[room]:
                rooms ^= 1 << room
        else:
            room, sequence = capacity, len(sequences)
            sequences.append([])
        sequences[sequence].append(index)
        left = room - length
        if left:
            waiting = by_room.setdefault(left, [])
            waiting.append(sequence)
            rooms |= 1 << left
    return sequences
