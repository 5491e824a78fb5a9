"""A member's classes onto those of the ensemble: several may become one, some may be missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import ContractError

# The logit of a class that a member does not know: finite, and far below anything a net computes.
FLOOR = np.float32(-1e30)


def onto(out: NDArray[np.float32], logits: NDArray[np.float32], targets: Sequence[int | None]) -> None:
    """Write the log-probabilities of the ensemble's classes; those of a member's classes that become one add up.

    Args:
        out: float32 (batch, classes of the ensemble, pixels), the result; :data:`FLOOR` for a class without any.
        logits: float32 (batch, classes of the member, pixels).
        targets: for each class of the member the ensemble's class, or None to leave it out.
    """
    peak = logits.max(axis=1, keepdims=True)
    terms = np.exp(logits - peak)
    total = terms.sum(axis=1)
    out[:] = FLOOR
    for target in sorted({target for target in targets if target is not None}):
        mine = [index for index, own in enumerate(targets) if own == target]
        # A sum that underflows to 0 becomes the logarithm of the least probability.
        share = np.maximum(terms[:, mine].sum(axis=1) / total, np.float32(2.0**-126))
        np.log(share, out=out[:, target])


def votes_onto(out: NDArray[np.float32], votes: NDArray[np.float32], targets: Sequence[int | None]) -> None:
    """Write 1 for the ensemble's class that a member votes for and 0 for all others; arguments as of :func:`onto`."""
    out[:] = 0
    for own, target in enumerate(targets):
        if target is not None:
            out[:, target] += votes[:, own]


@dataclass(frozen=True)
class ClassMap:
    """Where a member's classes go.

    Attributes:
        classes: names of the ensemble's classes.
        targets: for each class of the member the ensemble's class, or None to leave it out.
    """

    classes: tuple[str, ...]
    targets: tuple[int | None, ...]

    @classmethod
    def of(cls, stated: Mapping[str, str], own: Sequence[str], classes: Sequence[str]) -> ClassMap:
        """Make a map from names; a class that is not named goes to the class of its own name, if there is one.

        Args:
            stated: the ensemble's name of a class by the member's; an empty text leaves the class out.
            own: the member's classes.
            classes: the ensemble's.

        Raises:
            ContractError: a name that is none of the classes, or nothing is left.
        """
        for name, target in stated.items():
            if name not in own:
                raise ContractError(f"map: it has no class {name!r}; its classes are {', '.join(own)}")
            if target and target not in classes:
                raise ContractError(
                    f"map: {name} = {target!r} is no class of the ensemble; there are {', '.join(classes)}"
                )
        names = [stated.get(name, name) for name in own]
        targets = tuple(classes.index(name) if name in classes else None for name in names)
        if all(target is None for target in targets):
            raise ContractError(f"map: none of its classes, {', '.join(own)}, becomes one of the ensemble")
        return cls(tuple(classes), targets)
