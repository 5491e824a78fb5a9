"""Colours of classes: told apart by colour-blind readers too, the same in every picture the engine makes."""

from __future__ import annotations

import colorsys

# Okabe and Ito, "Color Universal Design" (2008), after a dark grey for the class that is usually background. Then the
# colours that are farthest from all before, white included, in OKLab (B. Ottosson, 2020), for normal sight and as
# protanopes, deuteranopes and tritanopes see them (G. Machado et al. 2009); a test holds their least distances.
FIRST = (
    (58, 58, 58), (230, 159, 0), (86, 180, 233), (240, 228, 66), (213, 94, 0), (0, 158, 115), (204, 121, 167),
    (0, 114, 178), (150, 75, 255), (0, 0, 210), (0, 240, 195), (105, 0, 150), (180, 30, 120), (135, 75, 0),
    (210, 195, 255), (0, 105, 75), (210, 0, 210), (150, 180, 135), (255, 195, 150), (150, 135, 240), (45, 15, 120),
    (120, 0, 30), (90, 0, 255), (165, 240, 255), (165, 210, 90), (90, 75, 165), (105, 120, 90), (225, 165, 180),
    (75, 15, 75), (195, 255, 180), (0, 60, 0), (255, 120, 210),
)  # fmt: skip
# Pixels that are too doubtful for a class, and their value in masks; none of the first 32 classes is near it.
UNKNOWN_COLOUR, UNKNOWN_INDEX = (255, 255, 255), 254
GOLDEN_RATIO = 0.6180339887498949


def colours(classes: int) -> list[tuple[int, int, int]]:
    """Return one RGB colour (0..255) per class; beyond the safe 32, hues spread by the golden ratio; 254 is white."""
    further = []
    for index in range(max(0, classes - len(FIRST))):
        value = (0.95, 0.7, 0.5)[index % 3]
        red, green, blue = colorsys.hsv_to_rgb(index * GOLDEN_RATIO % 1.0, 0.65, value)
        further.append((round(red * 255), round(green * 255), round(blue * 255)))
    found = [*FIRST[:classes], *further]
    found[UNKNOWN_INDEX : UNKNOWN_INDEX + 1] = [UNKNOWN_COLOUR] * (classes > UNKNOWN_INDEX)
    return found
