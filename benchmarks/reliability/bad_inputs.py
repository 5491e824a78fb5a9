"""Error messages for wrong and hostile inputs: a table of messages, exit codes, seconds and memory.

    python -m benchmarks.reliability.bad_inputs
    python -m benchmarks.reliability.bad_inputs --only plan csv

The inputs are those of the tests (tests/helpers/bad_inputs.py and hostile.py). Each command runs in a process of its
own, forked from one that has loaded everything. Leaves with 1 where one is not refused in one line with exit code 2,
prints a traceback, writes or leaves anything, takes 5 s, or takes much more memory than one that is refused at once.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import table
from benchmarks.reliability.kill_and_resume import prepare, start
from tests.helpers import bad_inputs
from tests.helpers.world import World, make_world
from tests.helpers.wrong_commands import wrong_commands

MOST_SECONDS = 5.0
# Beyond a command that is refused at once; a net of a megabyte and its arena are a part of it.
MOST_MIB = 150
# An input that hangs is ended after so long.
PATIENCE = 60
TRIES = 3


@dataclass(frozen=True)
class Row:
    """The result of one input.

    Attributes:
        name: of the input.
        message: text on stderr.
        code: the exit code.
        seconds: from the command's start to its end.
        mib: peak memory of its process, beyond that at the fork.
        faults: what is wrong with how it was refused; empty when nothing is.
    """

    name: str
    message: str
    code: int
    seconds: float
    mib: float
    faults: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Refuse all inputs and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", default=[""], help="inputs whose name contains one of these; writes no page"
    )
    options = parser.parse_args(arguments)
    prepare()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "world").mkdir()
        world = make_world(Path(folder) / "world")
        least = refuse("", lambda world: None, "ensemble --no-such-option", world, Path(folder)).mib
        wanted = {name: case for name, case in wrong_commands().items() if any(text in name for text in options.only)}
        rows = []
        for name, (arrange, line) in wanted.items():
            tries = (refuse(name, arrange, line, world, Path(folder), least) for _ in range(TRIES))
            # On a machine that does other things too, a second look tells what is slow from what was kept waiting.
            rows.append(quick_one(tries))
    for row in rows:
        if row.faults or options.only != [""]:
            print(f"{'BAD ' + row.faults if row.faults else 'ok'}: {row.name} | {row.seconds:.2f} s | {row.message}")
    wrong = sum(bool(row.faults) for row in rows)
    print(f"{len(rows) - wrong} of {len(rows)} wrong inputs are refused as required")
    if options.only == [""]:
        print(f"wrote {write(rows)}")
    return int(wrong > 0)


def quick_one(tries: Iterable[Row]) -> Row:
    """Return the first try that was quick enough, or the quickest."""
    seen: list[Row] = []
    for row in tries:
        seen.append(row)
        if row.seconds < MOST_SECONDS:
            break
    return min(seen, key=lambda row: row.seconds)


def refuse(name: str, arrange: bad_inputs.Arrange, line: str, world: World, folder: Path, least: float = 0.0) -> Row:
    """Run one command next to its input, and check its output and the files it leaves."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        os.chdir(place)
        arrange(world)
        before = snapshot()
        log = folder / "log"
        code, seconds, mib = forked(bad_inputs.words(line, world), log)
        told = log.read_text("utf-8", "replace")
        after = snapshot()
        os.chdir(folder)
    lines = told.splitlines()
    faults = {
        "a traceback": "Traceback" in told,
        f"exit code {code}": code != 2,
        f"{len(lines)} lines": len([text for text in lines if text.startswith("error: ")]) != 1 and bool(name),
        "something written": after != before,
        f"{seconds:.1f} s": seconds >= MOST_SECONDS,
        f"{mib - least:.0f} MiB": bool(name) and mib - least > MOST_MIB,
        "control characters": any(not (mark.isprintable() or mark == "\n") for mark in told),
    }
    message = lines[-1].replace(f"{world.folder}/", "") if lines else ""
    return Row(name, message, code, seconds, mib - least, ", ".join(fault for fault, is_so in faults.items() if is_so))


def snapshot() -> dict[str, bytes | None]:
    """Return every file here, with its contents."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in Path().rglob("*")}


def forked(words: Sequence[str], log: Path) -> tuple[int, float, float]:
    """Run ``engine WORDS`` in a process of its own; return its exit code, seconds and most memory in MiB."""
    log.write_bytes(b"")
    began = time.perf_counter()
    process = start(words, log=log)
    code, usage = 0, None
    while usage is None:
        done, status, held = os.wait4(process, os.WNOHANG)
        if done:
            code, usage = os.waitstatus_to_exitcode(status), held
        elif time.perf_counter() - began > PATIENCE:
            os.kill(process, 9)
        else:
            time.sleep(0.005)
    return code, time.perf_counter() - began, usage.ru_maxrss / 1024


def cell(text: str, most: int = 400) -> str:
    """Return a text as a cell of a Markdown table."""
    text = re.sub(r"0x[0-9a-f]{6,}", "0x...", text)
    held = text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"
    return "`" + held.replace("`", "'").replace("|", "\\|") + "`"


def write(rows: Sequence[Row]) -> Path:
    """Write the page."""
    longest, most = max(row.seconds for row in rows), max(row.mib for row in rows)
    head = (
        f"{len(rows)} wrong or hostile inputs, each given to the command line in a separate process. "
        f"{sum(not row.faults for row in rows)} are refused as required: one line, exit code 2, no traceback, "
        f"nothing written, nothing left behind. The slowest takes {longest:.2f} s; peak memory is {most:.0f} MiB above "
        "that of a command that is refused at once.\n"
    )
    lines = [
        (
            cell(row.name),
            cell(row.message.removeprefix("error: ")),
            row.code,
            f"{row.seconds:.2f}",
            f"{max(0.0, row.mib):.0f}",
        )
        for row in rows
    ]
    body = table.rows(["input", "message", "exit code", "s", "MiB"], lines)
    return table.write(
        "bad_inputs",
        "Error messages for wrong inputs",
        "python -m benchmarks.reliability.bad_inputs",
        ["numpy", "onnxruntime-gpu"],
        head,
        body,
    )


if __name__ == "__main__":
    sys.exit(main())
