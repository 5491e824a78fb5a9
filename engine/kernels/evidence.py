"""Decoded scores -> probabilities as they are written, whose argmax is the label; maps of doubt.

Parts of :data:`engine.kernels.blocks.PART` pixels stay in the first-level cache between the loops. Probabilities are
compared as integers: the bits of floats that are not negative are in the order of the floats.
"""

from __future__ import annotations

import numpy as np

from engine.kernels import rows
from engine.kernels.exponential import exp_below_adding, exp_of
from engine.kernels.jit import kernel, part
from engine.kernels.logarithm import log_of

ZERO, HALF, ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)
NEVER = np.float32(-np.inf)
# float16 (IEEE 754 binary16): bits of 0.5 in float32, the least normal value, the shift of the exponent, and the
# bits of the fraction that are rounded away, to even.
HALF_BITS = np.int32(0x3F000000)
LEAST_NORMAL = np.float32(2.0**-14)
REBIAS = np.int32(0x38000000)
ROUND, DROPPED, LAST = np.int32(0xFFF), np.int32(13), np.int32(1)
NO_WORD = np.int32(-1)
# What `finish` measures.
NOTHING, ENTROPY, MARGIN = 0, 1, 2


@part
def half_bits(value):  # type: ignore[no-untyped-def]
    """Return the bits of a float32 in 0..1, rounded to float16, as int32."""
    bits = np.float32(value).view(np.int32)
    normal = (bits - REBIAS + ROUND + ((bits >> DROPPED) & LAST)) >> DROPPED
    # The unit of a float16 below the least normal one is that of float32 at 0.5: the addition rounds.
    small = np.float32(value + HALF).view(np.int32) - HALF_BITS
    return small if value < LEAST_NORMAL else normal


@part
def to_words(words, row, is_half):  # type: ignore[no-untyped-def]
    """Set int32 ``words`` to the bits of a float32 row, or to those of its rounded float16."""
    if is_half:
        for i in range(row.size):
            words[i] = half_bits(row[i])
    else:
        for i in range(row.size):
            words[i] = np.float32(row[i]).view(np.int32)


@part
def exp_of_allowed(row, total, source, peak):  # type: ignore[no-untyped-def]
    """Set ``row = exp(source - peak)``, 0 where ``source`` is minus infinity, and add it to ``total``."""
    for i in range(row.size):
        old, value = total[i], source[i]
        term = exp_of(value - peak[i])
        term = ZERO if value == NEVER else term
        row[i] = term
        total[i] = old + term


@part
def relative(row, total, source, peak):  # type: ignore[no-untyped-def]
    """Set ``row`` to ``source / peak``, 0 where either is not above 0, and add it to ``total``."""
    for i in range(row.size):
        old, value, top = total[i], source[i], peak[i]
        part = value / (top if top > ZERO else ONE)
        part = part if value > ZERO else ZERO
        row[i] = part
        total[i] = old + part


@part
def sharpen(row, total, sharp):  # type: ignore[no-untyped-def]
    """Raise values of at most 1 to the power ``sharp``, 0 staying 0, and add them to ``total``."""
    for i in range(row.size):
        old, value = total[i], row[i]
        power = log_of(value) * sharp
        raised = exp_of(power if power < ZERO else ZERO)
        raised = raised if value > ZERO else ZERO
        row[i] = raised
        total[i] = old + raised


@part
def divide_or_pick(row, total, label, c):  # type: ignore[no-untyped-def]
    """Divide by ``total``; where that is 0, set 1 for the class that is the label and 0 for the others."""
    for i in range(row.size):
        whole, value = total[i], row[i]
        share = value / (whole if whole > ZERO else ONE)
        picked = ONE if label[i] == c else ZERO
        row[i] = share if whole > ZERO else picked


@part
def set_probabilities(terms, total, peak, kept, image, start, label, log_domain, sharp):  # type: ignore[no-untyped-def]
    """Set float32 (classes, >= pixels) ``terms`` to the probabilities of some pixels: decoded scores, normalised.

    Args:
        terms: the result.
        total: float32 (pixels,) scratch.
        peak: float32 (pixels,) scratch.
        kept: float32 (batch, classes, all pixels), decoded scores.
        image: which of the batch.
        start: first pixel.
        label: uint8 (pixels,), the labels.
        log_domain: whether scores are logits; other scores count as 0 where they are negative.
        sharp: 1 / temperature.
    """
    classes, size = kept.shape[1], label.size
    stop = start + size
    rows.copy(peak, kept[image, 0, start:stop])
    for c in range(1, classes):
        rows.raise_to(peak, kept[image, c, start:stop])
    rows.fill(total, ZERO)
    for c in range(classes):
        if log_domain:
            exp_of_allowed(terms[c, :size], total, kept[image, c, start:stop], peak)
        else:
            relative(terms[c, :size], total, kept[image, c, start:stop], peak)
    if sharp != ONE:
        rows.fill(total, ZERO)
        for c in range(classes):
            sharpen(terms[c, :size], total, sharp)
    for c in range(classes):
        divide_or_pick(terms[c, :size], total, label, c)


@part
def compare_words(own, low, high, words, label, c):  # type: ignore[no-untyped-def]
    """Gather the label's word, and the greatest of the classes before and behind it."""
    for i in range(label.size):
        word, at, known, before, behind = words[i], label[i], own[i], low[i], high[i]
        own[i] = word if at == c else known
        low[i] = word if (at > c and word > before) else before
        high[i] = word if (at < c and word > behind) else behind


@part
def raise_label(own, low, high):  # type: ignore[no-untyped-def]
    """Raise the label's word above those before it and at least to those behind it: ties and rounding hide it."""
    for i in range(own.size):
        word, before, behind = own[i], low[i] + LAST, high[i]
        word = word if word > before else before
        own[i] = word if word > behind else behind


@part
def put_label(words, own, label, c):  # type: ignore[no-untyped-def]
    """Put the label's word where it belongs."""
    for i in range(label.size):
        word, raised = words[i], own[i]
        words[i] = raised if label[i] == c else word


@part
def add_entropy(row, term):  # type: ignore[no-untyped-def]
    """Subtract ``term * log(term)``, which is 0 at 0."""
    for i in range(row.size):
        old, value = row[i], term[i]
        row[i] = old - value * log_of(value)


@part
def best_but_label(own, other, term, label, c):  # type: ignore[no-untyped-def]
    """Gather the label's probability, and the greatest of the other classes'."""
    for i in range(label.size):
        value, known, best, at = term[i], own[i], other[i], label[i]
        own[i] = value if at == c else known
        other[i] = value if (at != c and value > best) else best


@part
def set_doubt(doubt, terms, label, other, measure, unit):  # type: ignore[no-untyped-def]
    """Set float32 (pixels,) ``doubt`` to the entropy (times ``unit``) or 1 - margin of the probabilities."""
    size = label.size
    rows.fill(doubt, ZERO)
    if measure == ENTROPY:
        for c in range(terms.shape[0]):
            add_entropy(doubt, terms[c, :size])
        rows.scale(doubt, unit)
    else:
        rows.fill(other, ZERO)
        for c in range(terms.shape[0]):
            best_but_label(doubt, other, terms[c, :size], label, c)
        for i in range(size):
            least = doubt[i] - other[i]
            doubt[i] = ONE - (least if least > ZERO else ZERO)


@kernel
def finish(kept, labels, log_domain, sharp, work, words, out, is_half, doubt, measure, unit):  # type: ignore[no-untyped-def]
    """Write probabilities and a map of doubt.

    Args:
        kept: float32 (batch, classes, pixels), decoded scores; minus infinity where a class is suppressed.
        labels: uint8 (batch, pixels).
        log_domain: whether scores are logits.
        sharp: 1 / temperature.
        work: float32 (classes + 3, part) scratch.
        words: int32 (classes + 3, part) scratch.
        out: uint16 or int32 (batch, classes, pixels), the bits of the probabilities; (batch, 0, ...) for none.
        is_half: whether they are float16 ones.
        doubt: float32 (batch, pixels), the result of ``measure``.
        measure: :data:`NOTHING`, :data:`ENTROPY` or :data:`MARGIN`.
        unit: factor on the entropy in nats.
    """
    batch, classes, pixels = kept.shape
    part = work.shape[1]
    for b in range(batch):
        for start in range(0, pixels, part):
            n = min(part, pixels - start)
            label, terms = labels[b, start : start + n], work[:classes]
            total, peak, other = work[classes, :n], work[classes + 1, :n], work[classes + 2, :n]
            set_probabilities(terms, total, peak, kept, b, start, label, log_domain, sharp)
            if measure != NOTHING:
                set_doubt(doubt[b, start : start + n], terms, label, other, measure, unit)
            if out.shape[1]:
                own, low, high = words[classes, :n], words[classes + 1, :n], words[classes + 2, :n]
                rows.fill(own, np.int32(0))
                rows.fill(low, NO_WORD)
                rows.fill(high, np.int32(0))
                for c in range(classes):
                    to_words(words[c, :n], terms[c, :n], is_half)
                    compare_words(own, low, high, words[c, :n], label, c)
                raise_label(own, low, high)
                for c in range(classes):
                    put_label(words[c, :n], own, label, c)
                    rows.copy(out[b, c, start : start + n], words[c, :n])


@kernel
def vote_doubt(logits, weights, ids, labels, best, choice, doubt):  # type: ignore[no-untyped-def]
    """Set float32 (batch, pixels) ``doubt`` to the weight of the members whose best class is not the label.

    Args:
        logits: float32 (members, batch, classes, pixels).
        weights: float32 (members, classes), columns summing to 1.
        ids: int64 (count,), the classes that may be predicted, ascending.
        labels: uint8 (batch, pixels).
        best: float32 (block,) scratch.
        choice: int32 (block,) scratch.
        doubt: the result.
    """
    members, batch, _, pixels = logits.shape
    block = best.size
    for b in range(batch):
        for start in range(0, pixels, block):
            stop = min(start + block, pixels)
            row, label = doubt[b, start:stop], labels[b, start:stop]
            own, chosen = best[: stop - start], choice[: stop - start]
            rows.fill(row, ONE)
            for m in range(members):
                rows.copy(own, logits[m, b, ids[0], start:stop])
                rows.fill(chosen, np.int32(ids[0]))
                for k in range(1, ids.size):
                    rows.take_greater(own, chosen, logits[m, b, ids[k], start:stop], np.int32(ids[k]))
                for c in ids:
                    take_agreed(row, chosen, label, np.int32(c), weights[m, c])
            for i in range(row.size):
                row[i] = row[i] if row[i] > ZERO else ZERO


@part
def take_agreed(row, chosen, label, c, weight):  # type: ignore[no-untyped-def]
    """Subtract ``weight`` where both a member's choice and the label are ``c``."""
    for i in range(row.size):
        old = row[i]
        row[i] = old - (weight if (chosen[i] == c and label[i] == c) else ZERO)


@kernel
def mutual_information(logits, weights, ids, work, unit, doubt):  # type: ignore[no-untyped-def]
    """Set ``doubt`` to the entropy of the members' mean probabilities minus the mean of their entropies.

    Args:
        logits: float32 (members, batch, classes, pixels).
        weights: float32 (members,), summing to 1.
        ids: int64 (count,), the classes that may be predicted: probabilities are taken among them.
        work: float32 (2 * count + 3, part) scratch.
        unit: factor on the result in nats.
        doubt: float32 (batch, pixels), the result.
    """
    members, batch, _, pixels = logits.shape
    count, part = ids.size, work.shape[1]
    for b in range(batch):
        for start in range(0, pixels, part):
            n = min(part, pixels - start)
            stop = start + n
            terms, means = work[:count], work[count : 2 * count]
            total, peak, own = work[2 * count, :n], work[2 * count + 1, :n], work[2 * count + 2, :n]
            row = doubt[b, start:stop]
            rows.fill(row, ZERO)
            for k in range(count):
                rows.fill(means[k, :n], ZERO)
            for m in range(members):
                rows.copy(peak, logits[m, b, ids[0], start:stop])
                for k in range(1, count):
                    rows.raise_to(peak, logits[m, b, ids[k], start:stop])
                rows.fill(total, ZERO)
                for k in range(count):
                    exp_below_adding(terms[k, :n], total, logits[m, b, ids[k], start:stop], peak)
                # -H = sum of q * (z - peak) - log(sum of terms)
                rows.fill(own, ZERO)
                add_log(own, total, -ONE)
                rows.invert(total)
                for k in range(count):
                    rows.add_surprise(own, terms[k, :n], total, logits[m, b, ids[k], start:stop], peak)
                    rows.add_product(means[k, :n], terms[k, :n], total, weights[m])
                rows.add_scaled(row, own, weights[m])
            for k in range(count):
                add_entropy(row, means[k, :n])
            for i in range(n):
                value = row[i] * unit
                row[i] = value if value > ZERO else ZERO


@part
def add_log(row, term, factor):  # type: ignore[no-untyped-def]
    """Add ``factor * log(term)``."""
    for i in range(row.size):
        old = row[i]
        row[i] = old + factor * log_of(term[i])
