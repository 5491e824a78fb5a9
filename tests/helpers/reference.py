"""Plain NumPy twins of every fast path: float64, no blocks, no tricks. They are what the kernels are held to."""

from __future__ import annotations

from fractions import Fraction

import numpy as np


def softmax(logits):
    """Softmax over the class axis, which is the last but one."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-2, keepdims=True))
    return shifted / shifted.sum(axis=-2, keepdims=True)


def weighted(weights, members, classes):
    """Weights as (members, classes) with columns summing to 1."""
    table = np.ones((members, classes)) if weights is None else np.asarray(weights, np.float64)
    if table.ndim == 1:
        table = np.repeat(table[:, None], classes, axis=1)
    return table / table.sum(axis=0)


def mean_logit_scores(logits, weights=None):
    """(members, batch, classes, pixels) -> (batch, classes, pixels)."""
    table = weighted(weights, logits.shape[0], logits.shape[2])
    return np.einsum("mbcp,mc->bcp", logits.astype(np.float64), table)


def mean_prob_scores(logits, weights=None):
    return np.einsum("mbcp,mc->bcp", softmax(logits), weighted(weights, logits.shape[0], logits.shape[2]))


def vote_scores(logits, weights=None, voted=None):
    """Share of the votes, as exact fractions in an object array (batch, classes, pixels)."""
    members, batch, classes, pixels = logits.shape
    voted = np.ones(classes, bool) if voted is None else voted
    given = [1.0] * members if weights is None else list(weights)
    shares = [Fraction(repr(float(weight))) for weight in given]
    scores = np.full((batch, classes, pixels), Fraction(0), object)
    masked = np.where(voted[:, None], logits, -np.inf)
    winners = masked.argmax(axis=2)
    for m in range(members):
        for c in range(classes):
            scores[:, c][winners[m] == c] += shares[m]
    return scores


def argmax_allowed(scores, allowed, bias=None):
    """Lowest id of the best allowed class."""
    biased = scores if bias is None else scores + np.asarray(bias)[:, None]
    return np.where(allowed[:, None], biased, -np.inf).argmax(axis=-2).astype(np.uint8)


def vote_labels(logits, weights=None, allowed=None, stage="members"):
    """Hard vote: ties go to the higher mean probability, then to the lower id. Returns labels and tied pixels."""
    _, batch, classes, pixels = logits.shape
    allowed = np.ones(classes, bool) if allowed is None else allowed
    votes = vote_scores(logits, weights, allowed if stage == "members" else None)
    means = mean_prob_scores(logits, weights)
    labels = np.zeros((batch, pixels), np.uint8)
    tied = np.zeros((batch, pixels), bool)
    for b in range(batch):
        for p in range(pixels):
            ids = [c for c in range(classes) if allowed[c]]
            top = max(votes[b, c, p] for c in ids)
            best = [c for c in ids if votes[b, c, p] == top]
            tied[b, p] = len(best) > 1
            labels[b, p] = max(best, key=lambda c: (means[b, c, p], -c))
    return labels, tied


def margin(scores, allowed):
    """Distance between the two best allowed scores, (batch, pixels); infinite where one class alone is allowed."""
    masked = np.sort(np.where(allowed[:, None], scores.astype(np.float64), -np.inf), axis=-2)
    return masked[..., -1, :] - masked[..., -2, :]


def confusion(truth, predicted, classes):
    """Pixels by true and predicted class; those without a class on either side are left out."""
    counted = (truth < classes) & (predicted < classes)
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (truth[counted].astype(int), predicted[counted].astype(int)), 1)
    return matrix


def mean_iou(truth, predicted, classes, convention, ignored=0):
    """MIoU straight from its definition, pixel set by pixel set."""
    if convention == "per-image":
        values = [mean_iou(t, p, classes, "labelled", ignored) for t, p in zip(truth, predicted, strict=True)]
        values = [value for value in values if not np.isnan(value)]
        return np.mean(values) if values else np.nan
    counted = truth != ignored if convention in ("keras-ignore", "labelled") else np.ones(truth.shape, bool)
    t, p = truth[counted], predicted[counted]
    averaged = [c for c in range(classes) if convention in ("keras-ignore", "all") or c != ignored]
    values = []
    for c in averaged:
        union = ((t == c) | (p == c)).sum()
        if union:
            values.append(((t == c) & (p == c)).sum() / union)
    return np.mean(values) if values else np.nan


def borda_scores(logits, weights=None):
    members, _, classes, _ = logits.shape
    above = (logits[:, :, :, None] > logits[:, :, None]).sum(axis=3)
    equal = (logits[:, :, :, None] == logits[:, :, None]).sum(axis=3) - 1
    ranks = (above + equal / 2) / (classes - 1)
    # Rounded, so that equal sums of ranks are equal whatever the order of the additions.
    return np.round(np.einsum("mbcp,mc->bcp", ranks, weighted(weights, members, classes)), 12)


def left_to_others(logits):
    """Sum of exp(logit - greatest) over all classes but the (first) greatest: small where a member is sure."""
    ordered = np.sort(logits.astype(np.float64), axis=2)[:, :, ::-1]
    return np.exp(ordered[:, :, 1:] - ordered[:, :, :1]).sum(axis=2)


def max_confidence_scores(logits, weights=None):
    part = logits if weights is None else logits[np.asarray(weights) > 0]
    rest = left_to_others(part)[:, :, None]
    # Members closer than float32 can tell count as equally sure.
    return np.where(rest <= rest.min(axis=0) * (1 + 1e-5) + 1e-37, softmax(part), -1.0).max(axis=0)


def entropy_weighted_scores(logits, weights=None):
    q = softmax(logits)
    entropy = -(q * np.log(np.maximum(q, 1e-300))).sum(axis=2, keepdims=True)
    table = weighted(weights, logits.shape[0], logits.shape[2])
    return np.einsum("mbcp,mc->bcp", q * np.exp(-entropy), table)


def spread_out(logits, weights):
    """Repeat each member as often as its weight says, in whole numbers."""
    shares = [Fraction(repr(float(w))) for w in (np.ones(len(logits)) if weights is None else weights)]
    common = np.lcm.reduce([share.denominator for share in shares])
    return np.repeat(logits, [int(share * int(common)) for share in shares], axis=0)


def median_prob_scores(logits, weights=None):
    return np.median(softmax(spread_out(logits, weights)), axis=0)


def trimmed_mean_scores(logits, weights=None, trim=0.25):
    """Each member four times over, so that a quarter of the weight is a whole number of entries."""
    q = np.sort(softmax(np.repeat(spread_out(logits, weights), 4, axis=0)), axis=0)
    drop = round(trim * len(q))
    return q[drop : len(q) - drop].mean(axis=0)


def staple_scores(logits, weights=None, voted=None):
    """Warfield's EM, written with arrays over everything."""
    members, batch, classes, _ = logits.shape
    voted = np.ones(classes, bool) if voted is None else voted
    weights = np.ones(members) if weights is None else np.asarray(weights, float)
    kept = weights > 0
    power = weights[kept] / weights[kept].min()
    said = np.where(voted[:, None], logits[kept], -np.inf).argmax(axis=2)
    result = []
    for b in range(batch):
        one_hot = np.eye(classes)[said[:, b]]  # (members, pixels, classes)
        belief = np.einsum("mpc,m->cp", one_hot, power / power.sum())
        prior = np.log(np.maximum(belief.mean(axis=1), 1e-7))
        tables = np.zeros((len(power), classes, classes))
        for _ in range(100):
            sums = np.einsum("cp,mpl->mcl", belief, one_hot)
            total = sums.sum(axis=2, keepdims=True)
            new = np.where(total > 0, np.maximum(sums / np.where(total > 0, total, 1), 1e-7), 1 / classes)
            moved = np.abs(new - tables).max()
            tables = new
            if moved < 1e-5:
                break
            logs = prior[:, None] + np.einsum("mcl,mpl,m->cp", np.log(tables), one_hot, power)
            belief = np.exp(logs - logs.max(axis=0))
            belief /= belief.sum(axis=0)
        result.append(belief)
    return np.stack(result)


def scores(name, logits, weights=None):
    """Scores of a strategy by its name."""
    return globals()[name.replace("-", "_") + "_scores"](logits, weights)


def csv_rows(names, labels):
    """Rows of a submission, formatted by Python."""
    return b"".join(
        name + "".join(f",{value}" for value in row).encode() + b"\n"
        for name, row in zip(names, labels.tolist(), strict=True)
    )


def run_lengths(labels, value):
    """``start length ...`` of one class, starts from 1, by the differences of a padded mask."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (labels == value).astype(np.int8), [0]])))
    return " ".join(f"{begin + 1} {end - begin}" for begin, end in edges.reshape(-1, 2))


def coco_counts(mask):
    """COCO's compressed counts of a bool mask (height, width), as maskApi.c computes them."""
    counts, now, length = [], False, 0
    for pixel in mask.ravel(order="F"):
        if bool(pixel) != now:
            counts.append(length)
            now, length = not now, 0
        length += 1
    counts.append(length)
    text = ""
    for index, count in enumerate(counts):
        left = count - counts[index - 2] if index > 2 else count
        more = True
        while more:
            bits, left = left & 31, left >> 5
            more = left != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
    return text


def resize_matrix(source, target):
    """(target, source) matrix of a bilinear, half-pixel resize along one axis; what lies outside is the edge pixel."""
    matrix = np.zeros((target, source))
    for i in range(target):
        place = (i + 0.5) * source / target - 0.5
        first = int(np.floor(place))
        for pixel, share in ((first, first + 1 - place), (first + 1, place - first)):
            matrix[i, min(max(pixel, 0), source - 1)] += share
    return matrix


def bilinear(planes, size):
    """(..., height, width) -> (..., *size), as two products with matrices."""
    rows, columns = resize_matrix(planes.shape[-2], size[0]), resize_matrix(planes.shape[-1], size[1])
    return rows @ planes.astype(np.float64) @ columns.T


def nearest(maps, size):
    """(..., height, width) -> (..., *size): each pixel takes the one that its centre lies in."""
    out = np.empty((*maps.shape[:-2], *size), maps.dtype)
    for i in range(size[0]):
        for j in range(size[1]):
            row = (2 * i + 1) * maps.shape[-2] // (2 * size[0])
            column = (2 * j + 1) * maps.shape[-1] // (2 * size[1])
            out[..., i, j] = maps[..., row, column]
    return out


def mirror_padded(pixels, size):
    """(batch, height, width, channels) -> (batch, *size, channels) by NumPy's own padding, as often as it takes."""
    while pixels.shape[1:3] != tuple(size):
        height, width = pixels.shape[1:3]
        ways = [(0, min(to - side, max(side - 1, 1))) for to, side in zip(size, (height, width), strict=True)]
        for axis, way in zip((1, 2), ways, strict=True):
            pad = [(0, 0)] * 4
            pad[axis] = way
            pixels = np.pad(pixels, pad, mode="reflect" if pixels.shape[axis] > 1 else "edge")
    return pixels


def log_odds(probabilities):
    """log(p / (1 - p)) in float64 of probabilities inside 0..1."""
    p = probabilities.astype(np.float64)
    return np.log(p) - np.log1p(-p)


def binary_labels(foreground, threshold):
    """1 where the probability of the second class is above the threshold."""
    return (foreground > threshold).astype(np.uint8)


def mapped_log_probabilities(logits, targets, classes):
    """(batch, own classes, pixels) -> (batch, classes, pixels): probabilities added by target, -inf for none."""
    own = softmax(logits)
    out = np.zeros((len(own), classes, own.shape[2]))
    for index, target in enumerate(targets):
        if target is not None:
            out[:, target] += own[:, index]
    with np.errstate(divide="ignore"):
        return np.log(out)


def fill_mirrored(pixels, valid):
    """Gaps filled from the nearest valid pixel of their row or column, mirrored there; pixel by pixel."""
    filled, known = pixels.copy(), valid.copy()

    def nearest(line, place):
        """(distance, place taken instead) along one line; None without a valid pixel."""
        found = [(abs(place - other), other) for other in range(len(line)) if line[other]]
        if not found:
            return None
        distance, edge = min(found)
        mirror = 2 * edge - place
        return distance, mirror if 0 <= mirror < len(line) and line[mirror] else edge

    while not known.all():
        before, source = known.copy(), filled.copy()
        for row, column in np.argwhere(~before):
            across, down = nearest(before[row], column), nearest(before[:, column], row)
            if across is not None and (down is None or across[0] <= down[0]):
                filled[row, column] = source[row, across[1]]
            elif down is not None:
                filled[row, column] = source[down[1], column]
            known[row, column] = across is not None or down is not None
    return filled


def decoded_scores(name, logits, weights, decoding):
    """Scores of a strategy after gain, bias and suppression, float64; -infinity where a class cannot be predicted."""
    classes = logits.shape[2]
    rule = decoding.rule(classes, log_domain=name == "mean-logit")
    first = decoding.threshold is None and decoding.vote_stage == "members"
    voted = {"voted": rule.allowed} if name in ("vote", "staple") and first else {}
    found = globals()[name.replace("-", "_") + "_scores"](logits, weights, **voted).astype(np.float64)
    if name == "vote":  # counts of weights
        found = found / found.sum(axis=1, keepdims=True)
    share = found
    if name == "mean-logit":
        share = np.exp(found - found.max(axis=1, keepdims=True))
        share = share / share.sum(axis=1, keepdims=True)
    threshold = np.inf if decoding.threshold is None else decoding.threshold
    kept = rule.allowed[:, None] | (share >= threshold)
    ruled = found * rule.gain.astype(np.float64)[:, None] + rule.bias.astype(np.float64)[:, None]
    return np.where(kept, ruled, -np.inf)


def probabilities(name, scores, temperature=1.0):
    """Decoded scores (batch, classes, pixels) as probabilities: softmax of logits, other scores by their sum."""
    if name == "mean-logit":
        terms = np.exp((scores - scores.max(axis=1, keepdims=True)) / temperature)
    else:
        terms = np.maximum(scores, 0) ** (1 / temperature)
    total = terms.sum(axis=1, keepdims=True)
    best = np.arange(scores.shape[1])[:, None] == scores.argmax(axis=1)[:, None]
    return np.where(total > 0, terms / np.where(total > 0, total, 1), best)


def entropy(p, classes):
    """Entropy over the second axis, as a share of that of so many equal classes."""
    nats = -(p * np.log(np.where(p > 0, p, 1))).sum(axis=1)
    return nats / np.log(classes) if classes > 1 else nats * 0


def doubt_of(measure, name, logits, weights, decoding, labels):
    """A map of doubt, float64 (batch, pixels), 0 to 1."""
    members, _, classes, _ = logits.shape
    rule = decoding.rule(classes, log_domain=False)
    possible = np.flatnonzero(rule.allowed | (decoding.threshold is not None))
    table = weighted(weights, members, classes)
    p = probabilities(name, decoded_scores(name, logits, weights, decoding), decoding.temperature)
    if measure == "entropy":
        return entropy(p, len(possible))
    if measure == "margin":
        own = np.take_along_axis(p, labels[:, None].astype(int), axis=1)[:, 0]
        rest = np.where(np.arange(classes)[:, None] == labels[:, None], 0, p).max(axis=1)
        return 1 - np.maximum(own - rest, 0)
    if measure == "votes":
        choice = possible[logits[:, :, possible].argmax(axis=2)]
        agreed = [np.where(own == labels, row[labels], 0) for own, row in zip(choice, table, strict=True)]
        return np.maximum(1 - np.sum(agreed, axis=0), 0)
    q = softmax(logits[:, :, possible])
    share = table.mean(axis=1)
    mean = np.einsum("mbcp,m->bcp", q, share)
    own = np.stack([entropy(one, len(possible)) for one in q])
    return np.maximum(entropy(mean, len(possible)) - np.einsum("mbp,m->bp", own, share), 0)


def resampled_side(values: np.ndarray, to: int) -> np.ndarray:
    """Return a row of values with another number of pixels: means over what they cover, or linear between centres."""
    length = len(values)
    if to >= length:
        centres = (np.arange(to) + 0.5) * length / to - 0.5
        return np.interp(centres, np.arange(length), values)
    cut = np.unique([*(np.arange(to + 1) * length / to), *range(length + 1)])
    middle = (cut[1:] + cut[:-1]) / 2
    owner = (middle * to / length).astype(int)
    return np.bincount(owner, np.diff(cut) * values[middle.astype(int)], to) / (length / to)


def resized(planes, height, width):
    """Planes (..., rows, columns) resized bilinearly, half-pixel, in float64: pixel by pixel of each axis."""

    def along(values, target):
        source = values.shape[-1]
        out = np.empty((*values.shape[:-1], target))
        for i in range(target):
            place = min(max((i + 0.5) * source / target - 0.5, 0), source - 1)
            low = int(place)
            high = min(low + 1, source - 1)
            out[..., i] = values[..., low] + (place - low) * (values[..., high] - values[..., low])
        return out

    wide = along(planes.astype(np.float64), width)
    return along(wide.swapaxes(-1, -2), height).swapaxes(-1, -2)


# What turns images (batch, rows, columns), and what turns maps (batch, classes, rows, columns) back, in NumPy's words.
TURNS = {
    "plain": (lambda x: x, lambda z: z),
    "horizontal": (lambda x: x[:, :, ::-1], lambda z: z[..., ::-1]),
    "vertical": (lambda x: x[:, ::-1], lambda z: z[..., ::-1, :]),
    "rotate90": (lambda x: np.rot90(x, 1, (1, 2)), lambda z: np.rot90(z, -1, (2, 3))),
    "rotate180": (lambda x: np.rot90(x, 2, (1, 2)), lambda z: np.rot90(z, 2, (2, 3))),
    "rotate270": (lambda x: np.rot90(x, 3, (1, 2)), lambda z: np.rot90(z, -3, (2, 3))),
    "transpose": (lambda x: x.transpose(0, 2, 1), lambda z: z.transpose(0, 1, 3, 2)),
    "transverse": (
        lambda x: np.rot90(x, 2, (1, 2)).transpose(0, 2, 1),
        lambda z: np.rot90(z, 2, (2, 3)).transpose(0, 1, 3, 2),
    ),
}


def viewed_logits(run, images, names, mean="logits"):
    """The mean over views of float64 maps (batch, classes, rows, columns), by a loop over views and pixels' positions.

    Args:
        run: from float32 images (batch, rows, columns) to logits (batch, classes, rows, columns).
        images: float32 (batch, rows, columns).
        names: the views, the image itself among them.
        mean: logits or probabilities.
    """
    rows, columns = images.shape[1:]
    shape = (*run(images[:1]).shape[:2], rows, columns)
    total, seen = np.zeros((len(images), *shape[1:])), np.zeros((rows, columns))

    def told(maps):
        maps = maps.astype(np.float64)
        return maps if mean == "logits" else softmax(maps.reshape(*maps.shape[:2], -1)).reshape(maps.shape)

    for name in names:
        kind, *numbers = name.split(":")
        if kind == "scale":
            sides = [max(1, round(side * float(numbers[0]))) for side in (rows, columns)]
            total += resized(told(run(resized(images, *sides).astype(np.float32))), rows, columns)
            seen += 1
        elif kind == "shift":
            down, right = map(int, numbers)
            wide = np.pad(images, ((0, 0), (abs(down),) * 2, (abs(right),) * 2), "reflect")
            shifted = wide[:, abs(down) - down :, abs(right) - right :][:, :rows, :columns]
            maps = told(run(np.ascontiguousarray(shifted)))
            for i in range(rows):
                for j in range(columns):
                    if 0 <= i + down < rows and 0 <= j + right < columns:
                        total[:, :, i, j] += maps[:, :, i + down, j + right]
                        seen[i, j] += 1
        else:
            there, back = TURNS[kind]
            total += back(told(run(np.ascontiguousarray(there(images)))))
            seen += 1
    total /= seen
    return total if mean == "logits" else np.log(total)


def fold_logits(runs, images, names, mean="logits", unseen=None):
    """The mean of the nets of several folds over views, float64 (batch, classes, rows, columns), image by image.

    Args:
        runs: of each fold's net, as of :func:`viewed_logits`.
        images: float32 (batch, rows, columns).
        names: the views, the image itself among them.
        mean: logits or probabilities.
        unseen: for each image the fold that alone counts; None for the mean of all.
    """
    found = []
    for index in range(len(images)):
        own = runs if unseen is None else [runs[unseen[index]]]
        maps = [viewed_logits(run, images[index : index + 1], names, mean)[0] for run in own]
        found.append(sum(maps) / len(maps) if mean == "logits" else np.log(sum(map(np.exp, maps)) / len(maps)))
    return np.stack(found)
