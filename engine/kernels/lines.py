"""Labels under every value of one class's bias, in one pass over the pixels.

Raising the bias of a class moves pixels to it, each at a value of its own: the lead of the best other class. So the two
best classes of each pixel under the present biases say what every value of every class's bias does.

Arrays and their layout are those of :mod:`engine.kernels.selecting`.
"""

from __future__ import annotations

import numpy as np

from engine.kernels import rows
from engine.kernels.jit import kernel, part
from engine.kernels.selecting import BLOCK


@part
def keep_two(best, label, second, runner, base, shift, candidate):  # type: ignore[no-untyped-def]
    """Insert ``base + shift`` of a class into the two best of each pixel; all int32. The lower class wins a tie."""
    for i in range(best.size):
        new, top, next_best, known = np.int32(base[i] + shift), best[i], second[i], label[i]
        first = new > top
        other = new > next_best
        second[i] = top if first else (new if other else next_best)
        runner[i] = known if first else (candidate if other else runner[i])
        best[i] = new if first else top
        label[i] = candidate if first else known


@kernel
def rank_two(base, shifts, starts, best, label, second, runner):  # type: ignore[no-untyped-def]
    """Find the two best classes of each pixel, and their scores.

    Args:
        base: int32 (classes * pixels,), the sum of the members, in blocks.
        shifts: int32 (classes,), the present biases.
        starts: int64 (segments + 1,).
        best: int32 (pixels,), written to, as are the other three.
        label: the class of ``best``.
        second: the best score of the other classes.
        runner: its class.
    """
    classes = shifts.size
    for s in range(starts.size - 1):
        for start in range(starts[s], starts[s + 1], BLOCK):
            stop = min(start + BLOCK, starts[s + 1])
            n = stop - start
            rows.fill(best[start:stop], np.int32(-(2**31)))
            rows.fill(label[start:stop], np.int32(0))
            rows.fill(second[start:stop], np.int32(-(2**31)))
            rows.fill(runner[start:stop], np.int32(0))
            for c in range(classes):
                own = start * classes + c * n
                keep_two(
                    best[start:stop], label[start:stop], second[start:stop], runner[start:stop],
                    base[own : own + n], shifts[c], np.int32(c),
                )  # fmt: skip


@part
def first_moves(move, base, shift, candidate, best, label, second, runner, first, step, values):  # type: ignore[no-untyped-def]
    """Put into ``move`` the number of the first value at which each pixel takes the class ``candidate``.

    The values are ``first + k * step``, k from 0 to ``values - 1``; ``values`` stands for none of them. The quotient is
    exact where it matters: it has far fewer digits than a float64.
    """
    last = np.float64(values)
    for i in range(move.size):
        own = label[i] == candidate
        lead = np.float64(second[i] if own else best[i]) - np.float64(base[i]) - np.float64(shift)
        # The lower class wins a tie; the higher needs one more.
        other = runner[i] if own else label[i]
        lead = lead + 1.0 if candidate > other else lead
        place = (lead - first) / step
        place = place if place > 0.0 else 0.0
        place = place if place < last else last
        # Rounded up; a call of ceil is not vectorised.
        whole = np.int32(place)
        move[i] = whole + np.int32(1) if np.float64(whole) < place else whole


@kernel
def count_line(base, shift, candidate, starts, ranked, first, step, moved):  # type: ignore[no-untyped-def]
    """Count at which value of its bias pixels move to a class, and from which class.

    Args:
        base: int32 (classes * pixels,), the sum of the members, in blocks.
        shift: int32, the present bias of the class.
        candidate: int32, the class.
        starts: int64 (segments + 1,).
        ranked: the four arrays that :func:`rank_two` found.
        first: float64, the first value to add to the bias, a whole number.
        step: float64, whole, from one value to the next.
        moved: int32 (segments, values + 1, classes), added to; the last row counts pixels that no value moves, if it
            was preset to how often each other class is a label now: only pixels that move are visited.
    """
    values, classes = moved.shape[1] - 1, moved.shape[2]
    best, label, second, runner = ranked
    move = np.empty(BLOCK, np.int32)
    for s in range(starts.size - 1):
        for start in range(starts[s], starts[s + 1], BLOCK):
            stop = min(start + BLOCK, starts[s + 1])
            n = stop - start
            own = start * classes + candidate * n
            first_moves(
                move[:n], base[own : own + n], shift, candidate, best[start:stop], label[start:stop],
                second[start:stop], runner[start:stop], first, step, values,
            )  # fmt: skip
            for i in range(n):
                # The class itself is a label now only where it wins with the present bias, so where a value moves it.
                if move[i] < values:
                    own_now = label[start + i] == candidate
                    other = runner[start + i] if own_now else label[start + i]
                    moved[s, move[i], other] += 1
                    moved[s, values, other] -= 0 if own_now else 1
