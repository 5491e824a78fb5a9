"""The root of all errors and its subclasses.

A message is one line: what came, what is allowed, what to do. The command line prints it unchanged and exits with 2.
What to do is an option there and an argument in Python: :func:`option` writes one or the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_in_shell = False
# Arguments that are lists in Python, and texts with commas on the command line.
_LISTS = ("bands", "classes", "mean", "std")


@contextmanager
def naming_options() -> Iterator[None]:
    """Let messages name options of the command line (``--scale 1/255``) instead of arguments (``scale=1/255``)."""
    global _in_shell
    before, _in_shell = _in_shell, True
    try:
        yield
    finally:
        _in_shell = before


def option(name: str, value: str = "") -> str:
    """Return what the user has to give: ``--fit resize`` on the command line, ``fit="resize"`` in Python.

    Args:
        name: the argument, as in ``channel_order``.
        value: an example in command-line form; empty for the name only.
    """
    if _in_shell:
        return f"--{name.replace('_', '-')} {value}".rstrip()
    if not value:
        return name
    items = [item if item.replace("/", "").replace(".", "").isdecimal() else f'"{item}"' for item in value.split(",")]
    return f"{name}=[{', '.join(items)}]" if name in _LISTS else f"{name}={','.join(items)}"


class EngineError(Exception):
    """Root of every error this project raises on purpose."""


class ContractError(EngineError):
    """A model file whose contract is missing, contradictory, or different from that of the other members."""


class InputError(EngineError):
    """Images, labels or masks that cannot be read or do not fit."""


class TooLargeError(InputError):
    """An input that would take more memory than is allowed."""


class InputChangedError(InputError):
    """An input that was changed while it was read: nothing that was made of it is kept."""


class PlanError(EngineError):
    """Options or a plan file that ask for something impossible."""


class OutputError(EngineError):
    """A result that cannot be written to the requested place."""


class ModelError(EngineError):
    """A model that cannot be opened, or that computes NaN or infinity."""


class NotFiniteError(ModelError):
    """A member that computes NaN or infinity for some images of a batch.

    Attributes:
        member: name of the member.
        positions: indices of those images in the batch, ascending.
    """

    def __init__(self, member: str, positions: list[int], ids: list[str]) -> None:
        """Say which member and which images.

        Args:
            member: name of the member.
            positions: indices of the images in the batch, ascending.
            ids: the names of those images.
        """
        named = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
        super().__init__(
            f"member {member} computes NaN or infinity for image{'s' if len(ids) > 1 else ''} {named}: "
            "leave the member out, repair the images, or add --on-bad-image skip"
        )
        self.member, self.positions = member, positions
