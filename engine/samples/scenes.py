"""Seeded, labelled scenes that imitate grey tiles of Mars panoramas, in NumPy only.

A scene is a flat plain seen in perspective. Unit-variance random fields are drawn on the ground, each with its own
power spectrum, and projected into the image once. Some determine where a terrain lies, the others its texture.
Stones are drawn on top, then sky, sensor and the black frame of the mosaic. Labels come from the same fields, drawn
less accurately than the image, and parts of the ground stay unlabelled (class 0) whatever they show.

Grey values are offsets from soil (0) at a reference level of 130 until :func:`_expose` turns them into pixels.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError

CLASSES = ("background", "soil", "bedrock", "sand", "big rock")
BACKGROUND, SOIL, BEDROCK, SAND, ROCK = range(5)
MIN_SIDE = 16

Float = NDArray[np.float32]
Bytes = NDArray[np.uint8]

# Spectra of the random fields as (slope of the amplitude, shortest and longest wavelength in pixels, stretch along x).
# A wavelength of 0 sets no limit. Textures lie on the ground and are seen in perspective; regions lie in the image and
# have no short waves, because what a person outlines is smooth at that scale.
_TEXTURES: dict[str, tuple[float, float, float, float]] = {
    "grain": (0.15, 0.0, 20.0, 1.3),
    "pebbles": (0.3, 2.4, 9.0, 1.7),
    "strata": (1.4, 6.0, 50.0, 3.5),
    "joints": (1.2, 4.0, 30.0, 1.3),
    "swell": (1.9, 4.0, 0.0, 1.6),
}
_REGIONS: dict[str, tuple[float, float, float, float]] = {
    "bedrock": (2.2, 2.0, 0.0, 2.2),
    "sand": (2.2, 2.0, 0.0, 3.0),
    "unlabelled": (2.1, 2.0, 0.0, 2.2),
}

_LOBES = np.array([2, 3, 5], np.float32)[:, None, None]  # of a stone's outline


@dataclass(frozen=True)
class Scenes:
    """A set of labelled scenes.

    Attributes:
        images: uint8 (count, height, width), grey values 0 to 255.
        labels: uint8 (count, height, width), indices into :data:`CLASSES`.
    """

    images: Bytes
    labels: Bytes


@dataclass(frozen=True)
class _View:
    """Where the camera looks: rows (h, 1), columns (1, w), texels per pixel and texel row of each row, light, dip."""

    rows: Float
    cols: Float
    density: Float
    depth: Float
    far: Float
    skyline: Float
    light: float
    dip: float


def generate(count: int, seed: int = 0, size: tuple[int, int] = (64, 128)) -> Scenes:
    """Make labelled scenes.

    Scene ``i`` depends only on ``seed``, ``i`` and ``size``, so a shorter set is a prefix of a longer one. A larger
    size shows a wider view at the same grain, with larger stones and regions.

    Args:
        count: number of scenes, 0 or more.
        seed: seed of the whole set, 0 or more.
        size: (height, width) in pixels, each at least 16.

    Returns:
        Images and labels, uint8 (count, height, width) each.

    Raises:
        InputError: ``count`` or ``seed`` is negative or not a whole number, or ``size`` is not a pair or too small.
    """
    count, seed = _whole("count", count, 0), _whole("seed", seed, 0)
    try:
        height, width = size
    except (TypeError, ValueError):
        raise InputError(f"size is {size!r}; give a pair (height, width) of whole numbers from {MIN_SIDE}") from None
    shape = (_whole("height", height, MIN_SIDE), _whole("width", width, MIN_SIDE))
    scenes = Scenes(np.empty((count, *shape), np.uint8), np.empty((count, *shape), np.uint8))
    for index in range(count):
        scenes.images[index], scenes.labels[index] = _scene(np.random.default_rng([seed, index]), shape)
    return scenes


def _whole(name: str, value: object, least: int) -> int:
    """Return ``value`` as an int of at least ``least``, or raise InputError."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InputError(f"{name} is {value!r}; give a whole number from {least}") from None
    if number < least:
        raise InputError(f"{name} is {number}; give a whole number from {least}")
    return number


def _scene(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Float, Bytes]:
    """Draw one scene: grey values in 0..255 and labels, both (height, width)."""
    view = _look(rng, shape)
    fields = _fields(rng, shape)
    fields |= _project({name: fields[name] for name in _TEXTURES}, view)
    sand, bedrock = _regions(rng, fields, view)
    image = _soil(rng, fields, view)
    image = _mix(image, _sand(rng, fields, view), sand + 0.12 * fields["grain"])
    image = _mix(image, _bedrock(rng, fields, view), bedrock - np.maximum(sand, 0) + 0.10 * fields["pebbles"])
    labels = _outline(rng, sand, bedrock, fields["unlabelled"])
    _scatter_stones(rng, image, labels, fields["grain"], view)
    _leave_unlabelled(rng, labels, fields, view)
    image = _haze_and_sky(rng, image, labels, fields["swell"], view)
    image = _expose(rng, image)
    _frame(rng, image, labels)
    return image, labels


def _look(rng: np.random.Generator, shape: tuple[int, int]) -> _View:
    """Choose the camera: the horizon lies in the image in some scenes, above its edge in the others."""
    height, width = shape
    rows = np.arange(height, dtype=np.float32)[:, None]
    cols = np.arange(width, dtype=np.float32)[None, :]
    visible = rng.random() < 0.34
    horizon = height * (rng.uniform(0.05, 0.32) if visible else -(rng.uniform(0.15, 1.6) ** 1.5))
    tilt = rng.uniform(-0.06, 0.06) * height / width
    waves = np.arange(1, 7, dtype=np.float32)[:, None]
    phases = 2 * np.pi * (waves * cols / (1.6 * width) + rng.random((6, 1), np.float32))
    hills = (np.sin(phases) / waves**1.2).sum(0, dtype=np.float32) * height * rng.uniform(0.004, 0.018)
    skyline = horizon + tilt * (cols[0] - width / 2) + hills
    near = np.maximum(rows - horizon, 0) / (height - horizon)
    density = (1.12 / (near + 0.12)).astype(np.float32)
    # A step of one row covers more ground the farther it is; the exponent, 2 for a pinhole, is lower to limit aliasing.
    depth = np.cumsum(density**1.35, axis=0, dtype=np.float32)
    light, dip = float(rng.choice([-1.0, 1.0])), float(rng.normal(0, 0.12))
    return _View(
        rows, cols, density, depth, np.exp(-near * 8).astype(np.float32), skyline.astype(np.float32), light, dip
    )


@lru_cache(maxsize=8)
def _filters(shape: tuple[int, int]) -> Float:
    """Amplitude of each field's spectrum, (field, height, width // 2 + 1), scaled to unit variance."""
    height, width = shape
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    filters = []
    for slope, shortest, longest, stretch in (_TEXTURES | _REGIONS).values():
        frequency = np.hypot(fy, fx * stretch)
        frequency[0, 0] = 1.0
        amplitude = frequency**-slope
        amplitude *= np.exp(-((frequency * shortest) ** 2) / 2)
        if longest:
            amplitude *= 1 - np.exp(-((frequency * longest) ** 2) / 2)
        amplitude[0, 0] = 0.0
        # A column also represents its mirror image, except the outermost ones, where only the real part counts.
        weight = np.where((fx > 0) & (fx < 0.5), 4.0, 1.0)
        filters.append(amplitude * (height * width / np.sqrt((weight * amplitude**2).sum())))
    result = np.stack(filters).astype(np.float32)
    result.setflags(write=False)
    return result


def _fields(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, Float]:
    """Random fields, (height, width) each: periodic, zero mean, unit variance."""
    filters = _filters(shape)
    white = rng.standard_normal((*filters.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    planes = np.fft.irfft2(white * filters, s=shape, axes=(1, 2)).astype(np.float32, copy=False)
    return dict(zip((*_TEXTURES, *_REGIONS), planes, strict=True))


def _project(textures: dict[str, Float], view: _View) -> dict[str, Float]:
    """Sample the periodic ground bilinearly where each pixel sees it; returns each field as (height, width)."""
    ground = np.stack(list(textures.values()))
    count, height, width = ground.shape
    y = view.depth + view.dip * (view.cols - width / 2) * view.density
    x = (view.cols - width / 2) * view.density + width / 2
    top, left = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
    v, u = (y - top).astype(np.float32), (x - left).astype(np.float32)
    upper, lower = top % height * width, (top + 1) % height * width
    first, second = left % width, (left + 1) % width
    flat = ground.reshape(count, -1)
    above = flat.take(upper + first, 1) * (1 - u) + flat.take(upper + second, 1) * u
    below = flat.take(lower + first, 1) * (1 - u) + flat.take(lower + second, 1) * u
    return dict(zip(textures, above * (1 - v) + below * v, strict=True))


def _regions(rng: np.random.Generator, fields: dict[str, Float], view: _View) -> tuple[Float, Float]:
    """Terrain layout: signed scores of sand and of bedrock; soil lies where both are below 0."""
    middle = (view.rows / len(view.rows) - 0.5).astype(np.float32)
    scores = []
    for name, present, low, high in (("sand", 0.62, 0.2, 1.9), ("bedrock", 0.36, -1.2, 1.5)):
        threshold = rng.uniform(low, high) if rng.random() < present else 9.0
        scores.append(fields[name] + rng.normal(0.4, 1.2) * middle - np.float32(threshold))
    return scores[0], scores[1]


def _mix(under: Float, over: Float, score: Float) -> Float:
    """Lay one texture over another where the score is positive, with a narrow ramp at the border."""
    weight = np.clip(score * 5 + 0.5, 0, 1)
    return under + weight * (over - under)


def _lit(relief: Float, view: _View) -> Float:
    """Shading of a relief lit from one side and from behind: the slope of the surface towards the light."""
    shade = np.diff(relief, axis=1, prepend=relief[:, :1]) * np.float32(view.light)
    shade += 0.7 * np.diff(relief, axis=0, prepend=relief[:1])
    return shade


def _soil(rng: np.random.Generator, fields: dict[str, Float], view: _View) -> Float:
    """Fine grain, faint hummocks and pebbles with a lit and a dark side; how stony it is varies over the scene."""
    grain, rough = fields["grain"], rng.uniform(3.0, 8.0)
    stony = rng.uniform(0.7, 2.0) - 0.4 * fields["swell"]
    pebbles = np.clip(fields["pebbles"] - stony, 0, 1.2)
    shadow = np.roll(pebbles, (1, round(view.light)), axis=(0, 1))  # what wraps around is one row and one column
    image = rough * grain + 5 * _lit(fields["swell"], view) + rng.uniform(1, 3) * fields["swell"]
    return image + rng.uniform(10, 22) * _lit(pebbles, view) - rng.uniform(16, 34) * (pebbles + 0.8 * shadow)


def _sand(rng: np.random.Generator, fields: dict[str, Float], view: _View) -> Float:
    """Smooth ground: dunes shaded softly and ripples whose crests bend with the dunes."""
    swell = fields["swell"]
    length, bend = rng.uniform(5, 11), rng.uniform(0.15, 0.5)
    crests = view.depth / length + view.cols * (view.density * rng.uniform(-0.02, 0.02)) + bend * swell
    ripples = rng.uniform(0.3, 3.5) * np.sin(np.float32(2 * np.pi) * crests)
    tone = rng.normal(3, 4)
    return tone + ripples + 9 * _lit(swell, view) + rng.uniform(0.4, 1.6) * fields["grain"]


def _bedrock(rng: np.random.Generator, fields: dict[str, Float], view: _View) -> Float:
    """Fractured slabs: terraces of strata, brighter towards the lip, cut off by broken dark edges and by joints."""
    level = rng.uniform(0.5, 1.2) * fields["strata"] + rng.uniform(0.02, 0.06) * view.depth
    slab = np.floor(level)
    lip = level - slab
    hardness = rng.uniform(0.35, 1.2)
    tone = 5 * np.sin(slab * 2.4 + rng.uniform(0, 6)) + 16 * (lip - 0.4)
    edge = np.clip(1.3 - lip / rng.uniform(0.12, 0.25), 0, 1) * np.clip(0.6 + 0.4 * fields["pebbles"], 0.1, 1.2)
    joint = np.clip(1.2 - np.abs(fields["joints"]) / 0.12, 0, 1) * (fields["strata"] > 0.3)
    image = rng.uniform(4, 11) + hardness * (tone - 36 * edge - 22 * joint)
    return image + hardness * 4 * _lit(fields["joints"], view) + rng.uniform(1.5, 3) * fields["grain"]


def _outline(rng: np.random.Generator, sand: Float, bedrock: Float, drift: Float) -> Bytes:
    """Label terrains as a person outlines them: a pixel or so off, and drifting with an unrelated field."""
    down, right = rng.integers(0, 3, 2).tolist()
    moved = np.s_[down : down + sand.shape[0], right : right + sand.shape[1]]
    wobble = np.float32(0.10) * np.roll(drift, 7, axis=1)
    sand, bedrock = (np.pad(score, 1, mode="edge")[moved] + wobble for score in (sand, bedrock))
    labels = np.where(sand > 0, np.uint8(SAND), np.uint8(SOIL))
    labels[bedrock > np.maximum(sand, 0)] = BEDROCK
    return labels


def _leave_unlabelled(rng: np.random.Generator, labels: Bytes, fields: dict[str, Float], view: _View) -> None:
    """Leave irregular patches, and often the far ground, without a label, whatever they show (in place)."""
    if rng.random() < 0.72:
        middle = view.rows / len(view.rows) - 0.5
        threshold = rng.uniform(0.0, 2.0)
        labels[fields["unlabelled"] + rng.normal(0, 0.8) * middle > threshold] = BACKGROUND
    if rng.random() < 0.5:
        reach = len(labels) * rng.uniform(0.0, 0.22)
        labels[view.rows < np.maximum(view.skyline, 0) + reach * (1 + 0.5 * fields["sand"])] = BACKGROUND


def _scatter_stones(rng: np.random.Generator, image: Float, labels: Bytes, grain: Float, view: _View) -> None:
    """Draw loose stones, and in about half of the scenes groups of big ones, most of them labelled (in place)."""
    height, width = image.shape
    unit = height / 64
    stones = [(rng.uniform(0, width), rng.uniform(0.1, 1), rng.uniform(1.2, 3.0), False) for _ in range(rng.poisson(5))]
    for _ in range(rng.integers(1, 5) if rng.random() < 0.52 else 0):
        x, y, labelled = rng.uniform(0, width), rng.uniform(0.15, 1), rng.random() < 0.9
        for _ in range(rng.integers(2, 7)):
            at = x + rng.normal(0, 14) * unit, float(np.clip(y + rng.normal(0, 0.05), 0, 1))
            stones.append((*at, 2.5 + rng.gamma(2.0, 2.2), labelled))
    top = max(float(view.skyline.mean()), 0.0)
    for x, y, radius, labelled in sorted(stones, key=lambda stone: stone[1]):
        row = top + y * (height - top)
        scale = 0.35 + 0.65 / float(view.density[min(int(row), height - 1), 0])
        _stone(rng, image, labels, grain, (x, row, max(radius * unit * scale, 0.9)), view.light, labelled)


def _stone(
    rng: np.random.Generator,
    image: Float,
    labels: Bytes,
    grain: Float,
    place: tuple[float, float, float],
    light: float,
    labelled: bool,
) -> None:
    """Draw one convex stone at (x, row, radius): facets lit from one side, shadow cast to the other (in place)."""
    x, row, radius = place
    flat, facets = rng.uniform(0.5, 0.8), int(rng.integers(5, 9))
    phases = rng.uniform(0, 2 * np.pi, (3, 1, 1)).astype(np.float32)
    slip = rng.normal(0, 0.5, 2).tolist()
    reach = int(2.0 * radius) + 2
    area = np.s_[max(int(row) - reach, 0) : int(row) + reach + 1, max(int(x) - reach, 0) : int(x) + reach + 1]
    window = image[area]
    if not window.size:
        return
    rows = np.arange(area[0].start, area[0].start + window.shape[0], dtype=np.float32)[:, None]
    cols = np.arange(area[1].start, area[1].start + window.shape[1], dtype=np.float32)[None, :]
    dx, dy = (cols - x) / radius, (rows - row) / (radius * flat)
    angle = np.arctan2(dy, dx)
    outline = 1 + 0.10 * np.cos(_LOBES * angle + phases).sum(0)
    distance = np.hypot(dx, dy) / outline
    facet = np.round(angle * facets / (2 * np.pi)) * (2 * np.pi / facets)
    slope = np.minimum(distance, 1)
    lambert = -slope * (0.65 * light * np.cos(facet) + 0.45 * np.sin(facet)) + 0.6 * np.sqrt(1 - slope**2)
    shadow = np.hypot(dx - 0.75 * light, (dy - 0.45) / 0.7) < 1.05
    body = np.clip((1 - distance) * radius + 0.5, 0, 1)
    window -= np.where(shadow, 42 * (1 - body), 0)
    window += body * (96 * np.clip(lambert, 0, 1) - 70 + 5 * grain[area] - window)
    if labelled:
        loose = np.hypot(dx - slip[0] / radius, dy - slip[1] / radius) / outline
        labels[area][loose < 1.08 + 0.9 / radius] = ROCK


def _haze_and_sky(rng: np.random.Generator, image: Float, labels: Bytes, swell: Float, view: _View) -> Float:
    """Fade far ground into haze, put hills and a smooth, bright sky above the skyline; labels change in place."""
    haze = rng.uniform(0.15, 0.65) * view.far
    image = image + haze * (rng.uniform(-4, 14) - image)
    above = np.clip(view.skyline - view.rows, -0.5, 0.5) + 0.5
    hills = np.clip(view.skyline - rng.uniform(0, 0.1) * len(image) - view.rows, -0.5, 0.5) + 0.5
    ridge = rng.uniform(8, 32) + 1.5 * swell
    sky = rng.uniform(28, 62) + rng.uniform(0, 14) * view.rows / len(image)
    image = image + above * (ridge + hills * (sky - ridge) - image)
    labels[np.broadcast_to(view.rows < view.skyline + rng.normal(0, 0.7), labels.shape)] = BACKGROUND
    return image


def _expose(rng: np.random.Generator, image: Float) -> Float:
    """Turn offsets into pixels: gain of the scene, slight blur of the optics, noise of the sensor."""
    level = np.clip(rng.normal(132, 15), 65, 165)
    contrast, blur = rng.uniform(0.8, 1.3), rng.uniform(0.0, 0.10)
    padded = np.pad(level * (1 + contrast * image / 130), 1, mode="edge")
    padded = (1 - 2 * blur) * padded[1:-1] + blur * (padded[:-2] + padded[2:])
    pixels = (1 - 2 * blur) * padded[:, 1:-1] + blur * (padded[:, :-2] + padded[:, 2:])
    pixels += rng.uniform(0.8, 2.2) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(np.rint(pixels), 4, 255).astype(np.float32)


def _frame(rng: np.random.Generator, image: Float, labels: Bytes) -> None:
    """Black out strips the mosaic does not cover, stepped at top or bottom, slanted at the sides (in place)."""
    height, width = image.shape
    rows, cols = np.arange(height)[:, None], np.arange(width)[None, :]
    for flipped, present in ((False, 0.3), (True, 0.16)):
        if rng.random() < present:
            steps = np.sort(rng.uniform(0, width, rng.integers(0, 3)))
            depths = rng.uniform(0.0, 0.15, len(steps) + 1) * height
            edge = depths[np.searchsorted(steps, cols)] + rng.choice([0.0, 0.03, -0.03]) * (cols - width / 2)
            black = (rows[::-1] if flipped else rows) < edge
            image[black], labels[black] = 0, BACKGROUND
    if rng.random() < 0.14:
        edge = rng.uniform(0.01, 0.06) * width + rng.uniform(-0.08, 0.08) * (rows - height / 2)
        black = (cols[:, ::-1] if rng.random() < 0.5 else cols) < edge
        image[black], labels[black] = 0, BACKGROUND
