"""README is one script: each command finds what it reads, and nothing where it writes. CI runs it as well."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from tests.conftest import ROOT, Result

# What a reader has before the first command.
BROUGHT = {"mars_for_students.npz", "zoo/ensemble.toml", "a.onnx", "more/", "tiles/"}
PROGRAMS = ("engine ", "trainers ", "exporters ")
READ = ("--plan", "--input", "-i", "--labels", "--models", "-m", "--data", "--tiles")
WRITTEN = ("--output", "-o", "--out")


def test_every_command_reads_what_is_there_and_replaces_nothing(process: Callable[..., Result]) -> None:
    done = process("--list", module=("-m", "scripts.run_readme"), cwd=ROOT)
    assert done.code == 0, done.err
    lines = [shlex.split(line) for line in done.out.splitlines() if line.startswith(PROGRAMS)]
    assert len(lines) > 12
    there = set(BROUGHT)
    for words in lines:
        first = next((at for at, word in enumerate(words) if word.startswith("-")), len(words))
        arguments = {word for word in words[2:first] if "." in word or word.endswith("/")}
        read = {value for name, value in pairwise(words) if name in READ} | arguments
        written = {value for name, value in pairwise(words) if name in WRITTEN}
        assert read <= there, f"{shlex.join(words)}: made by no command above"
        assert not written & there, f"{shlex.join(words)}: it exists by then"
        there |= written or {"submission.csv", "preview.png"}
        there |= {f"{Path(name).stem}.validation.npz" for name in written if name.endswith(".keras")}
