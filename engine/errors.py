"""The error root and its few children.

A message is one line: what came, what is allowed, what to do. The command line prints it as it is and exits with 2.
"""


class EngineError(Exception):
    """Root of every error this project raises on purpose."""


class ContractError(EngineError):
    """A model file promises nothing, something contradictory, or something the other members do not."""


class InputError(EngineError):
    """Images, labels or masks that cannot be read or do not fit."""


class PlanError(EngineError):
    """Options or a plan file that ask for something impossible."""


class OutputError(EngineError):
    """A result that cannot be written where it was asked for."""


class ModelError(EngineError):
    """A model that cannot be opened, or that computes NaN or infinity."""


class NotFiniteError(ModelError):
    """A member that computes NaN or infinity for some images of a batch.

    Attributes:
        member: name of the member.
        positions: the places of those images in the batch, ascending.
    """

    def __init__(self, member: str, positions: list[int], ids: list[str]) -> None:
        """Say which member and which images.

        Args:
            member: name of the member.
            positions: the places of the images in the batch, ascending.
            ids: the names of those images.
        """
        named = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
        super().__init__(
            f"member {member} computes NaN or infinity for image{'s' if len(ids) > 1 else ''} {named}: "
            "leave the member out, mend the images, or add --on-bad-image skip"
        )
        self.member, self.positions = member, positions
