"""Colours of classes: safe for colour-blind readers, the same in every picture the engine makes."""

from __future__ import annotations

import colorsys

# Okabe and Ito, "Color Universal Design" (2008), after a dark grey for the class that is usually background.
FIRST = (
    (58, 58, 58),
    (230, 159, 0),
    (86, 180, 233),
    (240, 228, 66),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (0, 114, 178),
)
# Pixels that are too doubtful for a class, in previews and palettes.
UNKNOWN_COLOUR = (255, 255, 255)
GOLDEN_RATIO = 0.6180339887498949


def colours(classes: int) -> list[tuple[int, int, int]]:
    """Return one RGB colour (0..255) per class; beyond the safe eight, hues spread by the golden ratio."""
    further = []
    for index in range(max(0, classes - len(FIRST))):
        value = (0.95, 0.7, 0.5)[index % 3]
        red, green, blue = colorsys.hsv_to_rgb(index * GOLDEN_RATIO % 1.0, 0.65, value)
        further.append((round(red * 255), round(green * 255), round(blue * 255)))
    return [*FIRST[:classes], *further]
