"""Runs of equal labels <-> the compressed counts of COCO (maskApi.c of pycocotools, rleToString and rleFrString).

Counts are the lengths of runs of 0 and of 1 in turn, 0 first. From the fourth on each is stored less the one two before
it; five bits a character (from ``0`` on), the lowest first, a sixth bit where more follow.
"""

from __future__ import annotations

import numpy as np

from engine.kernels.jit import kernel, part

FIRST = 48
# Characters a count takes at most: seven times five bits, one of them the sign.
MOST_CHARACTERS = 7
LARGEST = 2**32


@kernel
def write_counts(text, labels, starts, count, value):  # type: ignore[no-untyped-def]
    """Write the compressed counts of one class.

    Args:
        text: uint8, the result; at least 7 bytes a run, and 14 more.
        labels: uint8 (pixels,).
        starts: int64, what :func:`engine.kernels.text.find_runs` wrote.
        count: the number of runs.
        value: the class.

    Returns:
        The number of bytes written.
    """
    at = 0
    written = 0
    inside = False
    length = 0
    before, two_before = 0, 0
    for run in range(count + 1):
        ended = run == count
        own = not ended and labels[starts[run]] == value
        if ended or own != inside:
            at = _write_count(text, at, length - two_before if written > 2 else length)
            two_before, before = before, length
            written += 1
            length = 0
            inside = own
        if not ended:
            length += starts[run + 1] - starts[run]
    return at


@part
def _write_count(text, at, number):  # type: ignore[no-untyped-def]
    more = True
    while more:
        bits = number & 0x1F
        number >>= 5
        more = number != -1 if bits & 0x10 else number != 0
        if more:
            bits |= 0x20
        text[at] = np.uint8(bits + FIRST)
        at += 1
    return at


@kernel
def read_counts(counts, text):  # type: ignore[no-untyped-def]
    """Read compressed counts.

    Args:
        counts: int64 (>= characters,), the result.
        text: uint8 (characters,).

    Returns:
        How many there are; -1 where the text is none of that form.
    """
    found = 0
    at = 0
    while at < text.size:
        number, shift, more = 0, 0, True
        while more:
            if at == text.size or text[at] < FIRST or text[at] >= FIRST + 64 or shift > 30:
                return -1
            bits = np.int64(text[at]) - FIRST
            number |= (bits & 0x1F) << shift
            more = bits & 0x20 != 0
            at += 1
            shift += 5
            if not more and bits & 0x10:
                number |= np.int64(-1) << shift
        if found > 2:
            number += counts[found - 2]
        if number < 0 or number > LARGEST:
            return -1
        counts[found] = number
        found += 1
    return found
