"""Command lines of this tree, or of an older one beside it, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = "import sys; from {0}.cli import main; sys.argv[0] = '{0}'; main()"
# So long may a command take before it counts as stuck.
MOST_SECONDS = 300
STUCK = -1


@dataclass(frozen=True)
class Tree:
    """The code that runs.

    Attributes:
        root: the folder of its packages.
    """

    root: Path = ROOT

    def run(
        self, folder: Path, *arguments: str, program: str = "engine", shell: str = '"$@"', before: str = ""
    ) -> tuple[int, str]:
        """Run a command line in a folder.

        Args:
            folder: where it runs; modules in it come first.
            arguments: of the program.
            program: ``engine``, ``exporters`` or ``trainers``.
            shell: what bash makes of the command.
            before: Python code that runs first in the same process.

        Returns:
            The exit code, ``STUCK`` where there is no end; and what it said on both streams.
        """
        code = f"{before}\n{PROGRAM.format(program)}"
        command = ["bash", "-c", shell, "bash", sys.executable, "-c", code, *arguments]
        return self.started(folder, command)

    def script(self, folder: Path, code: str, *arguments: str) -> tuple[int, str]:
        """Run Python code in a folder; return as :meth:`run`."""
        return self.started(folder, [sys.executable, "-c", code, *arguments])

    def started(self, folder: Path, command: list[str]) -> tuple[int, str]:
        """Run a command; return as :meth:`run`."""
        try:
            done = subprocess.run(
                command, cwd=folder, env=self.environment(folder), capture_output=True, text=True,
                timeout=MOST_SECONDS, check=False, start_new_session=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return STUCK, f"no end after {MOST_SECONDS} s"
        return done.returncode, done.stdout + done.stderr

    def environment(self, folder: Path) -> dict[str, str]:
        """Return the variables a process of this tree needs."""
        return {**os.environ, "PYTHONPATH": f"{folder}:{self.root}", "PYTHONUNBUFFERED": ""}


def ended(code: int, said: str, right: bool) -> str:
    """Return in words how a case of an older tree ended."""
    if right:
        return "as required"
    if code == STUCK:
        return f"no end in {MOST_SECONDS} s"
    if "Traceback" in said or "Error:" in said:
        return f"exit code {code}, a traceback"
    return f"exit code {code}" + (f": {said.removeprefix('error: ')[:80]}" if said else "")
