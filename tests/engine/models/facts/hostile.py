"""Values that no tool writes, for every reader: whatever comes, it is read or refused in one printable line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from engine.errors import ContractError
from engine.models.facts import Facts

NUMBERS = st.one_of(
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0, 1, 255, -1, 10**40, 1e300, 5e-324]),
)
# Letters, digits, quotes, brackets; what does not print, turns the direction of writing, or is no character alone.
TEXTS = st.text(alphabet="ab01 ß\n\x00\x1b'\"\\{}[]:,.\u202e\ud800", max_size=12)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)


def json_values(*keys: str) -> st.SearchStrategy[Any]:
    """Return JSON values whose objects often have these keys."""
    names = st.one_of(st.sampled_from([*keys, "0", "1", "2", "00"]), TEXTS)
    return st.recursive(
        SCALARS,
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=4)),
        max_leaves=8,
    )


def settled(read: Callable[[], Facts | list[Facts] | None]) -> list[Facts] | None:
    """Return what a reader returns; None where it refuses, once the refusal is one line that can be printed."""
    try:
        found = read()
    except ContractError as error:
        assert str(error).isprintable() and 0 < len(str(error)) < 1200
        return None
    facts = found if isinstance(found, list) else [] if found is None else [found]
    for fact in facts:
        assert all(text.isprintable() for text in fact.notes.values())
    return facts
