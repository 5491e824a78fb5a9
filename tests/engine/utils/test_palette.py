"""Colours of classes stay apart, for normal and for colour-blind eyes, by an independent library's CIEDE2000."""

from __future__ import annotations

from itertools import combinations

import pytest

from engine.utils.palette import FIRST, UNKNOWN_COLOUR, colours

coloraide = pytest.importorskip("coloraide")


def seen(colour: tuple[int, int, int], sight: str | None) -> object:
    held = coloraide.Color("srgb", [value / 255 for value in colour])
    return held if sight is None else held.filter(sight)


@pytest.mark.parametrize(("sight", "least"), [(None, 9.0), ("protan", 5.0), ("deutan", 5.0), ("tritan", 2.5)])
def test_no_two_of_32_classes_look_alike(sight: str | None, least: float) -> None:
    """2.3 is what one just notices (M. Mahy et al. 1994); classes 2 and 17 were 1.4 apart."""
    shown = [seen(colour, sight) for colour in [*colours(32), UNKNOWN_COLOUR]]
    assert min(one.delta_e(other, method="2000") for one, other in combinations(shown, 2)) >= least


def test_every_number_of_classes_has_its_colours() -> None:
    for count in (1, 8, 32, 33, 256):
        found = colours(count)
        assert len(found) == count
        assert found[:32] == list(FIRST[:count])
        assert all(0 <= value <= 255 for colour in found for value in colour)
    assert colours(255)[254] == UNKNOWN_COLOUR
