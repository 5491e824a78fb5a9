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
