"""The help of a command names the option values that other packages add; looked up only when help is shown."""

from __future__ import annotations

import contextlib
import re
from typing import Any

from typer.core import TyperCommand

from engine.errors import EngineError

# The options to which packages can add values, and the group of entry points for each.
GROUPS = {"strategy": "maskfuse.strategies", "runtime": "maskfuse.runtimes"}


class CommandWithAdded(TyperCommand):
    """A command of ``engine``."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help, with the names that packages add after the built-in ones."""
        for option in self.params:
            text = getattr(option, "help", None)
            if option.name in GROUPS and text:
                with contextlib.suppress(EngineError):  # broken metadata is an error once a name is used
                    option.help = text + _added(GROUPS[option.name], text)  # type: ignore[attr-defined]
        super().format_help(ctx, formatter)


def _added(group: str, text: str) -> str:
    """Return the text to append to an option's help, which names all built-in values."""
    from engine.utils.plugins import added_names

    names = added_names(group, re.findall(r"[\w-]+", text))
    return f" From other packages: {', '.join(names)}." if names else ""
