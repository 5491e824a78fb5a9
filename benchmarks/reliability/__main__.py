"""Writes docs/reliability.md from figures measured by other programs.

    python -m benchmarks.reliability.kill_and_resume --kills 50 --json figures/kill.json
    python -m benchmarks.reliability.kill_and_resume --kills 150 --one-pid --forms masks.zarr masks masks.csv \\
        --json figures/one_pid.json
    python -m benchmarks.reliability.kill_and_resume --kills 50 --one-pid --tile --forms mask.tif \\
        --json figures/one_pid_tiles.json
    python -m benchmarks.reliability.faults --json figures/faults.json
    python -m benchmarks.reliability.silent --json figures/silent.json
    python -m benchmarks.reliability.silent --tree /tmp/older --json figures/before.json
    MASKFUSE_FUZZ_SECONDS=1800 MASKFUSE_FUZZ_FIGURES=figures/fuzz python -m pytest tests/fuzz
    python -m benchmarks.reliability --kills figures/kill.json --faults figures/faults.json --fuzz figures/fuzz

takes the named figures (and --before figures/before.json --commit 7da9fc7, what an older commit made of the cases of
silent) into benchmarks/results/reliability.json, with day and machine, and rewrites the page; without arguments the
page is rewritten from the stored figures. `--check` writes nothing: its exit code is 1 if the page is out of date, or
if the stored faults are not those of faults.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import table
from benchmarks.reliability.faults import FAULTS
from benchmarks.reliability.silent import CASES

FIGURES = table.RESULTS / "reliability.json"
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
PACKAGES = ("numpy", "onnxruntime-gpu", "hypothesis")


def main(arguments: Sequence[str] | None = None) -> int:
    """Store new figures and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=Path, nargs="+", help="files written by kill_and_resume")
    parser.add_argument("--one-pid", type=Path, nargs="+", help="files written by kill_and_resume --one-pid")
    parser.add_argument("--silent", type=Path, help="file written by silent")
    parser.add_argument("--before", type=Path, help="file written by silent --tree")
    parser.add_argument("--commit", help="the commit of that tree")
    parser.add_argument("--faults", type=Path, help="file written by faults")
    parser.add_argument("--fuzz", type=Path, help="folder of a long fuzzing run, whose targets replace their rows")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the page is out of date")
    options = parser.parse_args(arguments)
    figures: dict[str, Any] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    if options.check:
        return check(figures)
    if options.kills:
        figures["kills"] = measured(added([row for path in options.kills for row in json.loads(path.read_text())]))
    if options.one_pid:
        rows = [row for path in options.one_pid for row in json.loads(path.read_text())]
        figures["one_pid"] = measured(added(rows))
    if options.silent:
        figures["silent"] = measured(json.loads(options.silent.read_text()))
    if options.before:
        before = {row["fault"]: row["ended"] for row in json.loads(options.before.read_text())}
        rows = [{**row, "before": before.get(row["fault"], "not run")} for row in figures["silent"]["rows"]]
        figures["silent"] = {**figures["silent"], "rows": rows, "commit_before": options.commit}
    if options.faults:
        figures["faults"] = measured(json.loads(options.faults.read_text()))
    if options.fuzz:
        rows = [json.loads(path.read_text()) for path in sorted(options.fuzz.glob("*.json"))]
        figures["fuzzing"] = fuzzed(figures.get("fuzzing", {"rows": []}), measured(rows))
    FIGURES.write_text(json.dumps(figures, indent=2) + "\n")
    PAGE.write_text(whole(figures))
    print(f"wrote {PAGE}")
    return 0


def check(figures: dict[str, Any]) -> int:
    """Print what is out of date; return the exit code."""
    wrong = []
    if PAGE.read_text("utf-8") != whole(figures):
        wrong.append(f"{PAGE.name}: it differs from {FIGURES.name}: run python -m benchmarks.reliability")
    stored, known = [row["fault"] for row in figures["faults"]["rows"]], [fault.told for fault in FAULTS]
    if stored != known:
        named = sorted(set(stored) ^ set(known)) or ["their order"]
        wrong.append(f"{FIGURES.name}: its faults are not those of faults.py: {', '.join(named)}")
    if [row["fault"] for row in figures["silent"]["rows"]] != list(CASES):
        wrong.append(f"{FIGURES.name}: its cases are not those of silent.py")
    print("\n".join(wrong) or f"{PAGE.name} is up to date")
    return int(bool(wrong))


def whole(figures: dict[str, Any]) -> str:
    """Return the text of the page."""
    return "\n".join([*page(figures), *elsewhere()]).rstrip() + "\n"


def added(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows summed over the same output and signals."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        key = f"{row['output']} {row['signals']} {row['tiles']}"
        before = found.get(key, {})
        found[key] = {**row, **{name: row[name] + before.get(name, 0) for name in ("killed", "cut_off", "identical")}}
    return list(found.values())


def fuzzed(held: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Return the stored rows with those of a new run in the place of the same targets.

    Each has its day and machine, and how many findings earlier runs of the target had.
    """
    rows = {row["target"]: row for row in held["rows"]}
    for row in found["rows"]:
        before = rows.get(row["target"], {"findings": []})
        earlier = before.get("earlier", 0) + len(before["findings"])
        rows[row["target"]] = {**row, "earlier": earlier, "day": found["day"], "machine": found["machine"]}
    return {"rows": [rows[target] for target in sorted(rows)]}


def measured(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return rows with the day and machine of the measurement."""
    machine = f"{table.processor()}; {table.versions(PACKAGES)}"
    return {"day": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine, "rows": rows}


def page(figures: dict[str, Any]) -> list[str]:
    """Return the parts of the page made from figures."""
    parts = [
        "# Measured reliability\n",
        "Generated by `python -m benchmarks.reliability` from "
        "[reliability.json](../benchmarks/results/reliability.json). How it works: [durability.md](durability.md).\n",
    ]
    for key, section in SECTIONS:
        if key in figures:
            parts += [*section(figures[key]), *([told_by(figures[key])] if "day" in figures[key] else [])]
    return parts


def one_pid(held: dict[str, Any]) -> list[str]:
    """Return the section on runs that are killed and resumed under one process number."""
    return [
        "## Killed and resumed in containers\n",
        "Each run is the first process of a namespace of its own: the killed run and the one that resumes it both have "
        "process number 1.\n",
        kills(held)[2],
    ]


def silent(held: dict[str, Any]) -> list[str]:
    """Return the section on what once went wrong unnoticed."""
    rows = held["rows"]
    lines = [
        [row["fault"], shown(row["message"]) if row["message"] else "nothing", row["code"], row["result"]]
        for row in rows
    ]
    right = sum(row["as_required"] for row in rows)
    return [
        "## Never wrong or lost without a word\n",
        f"{right} of {len(rows)} end as required. {compared(held)}\n",
        table.rows(["case", "what is said", "exit code", "result", *with_before(held, lines)], lines),
    ]


def with_before(held: dict[str, Any], lines: list[list[Any]]) -> list[str]:
    """Add to each line how its case ended with an older commit, and return the further heads of columns."""
    if "commit_before" not in held:
        return []
    for row, line in zip(held["rows"], lines, strict=True):
        told = row.get("before", "not run")
        line.append(shown(told) if ":" in told else told)
    return [f"with commit {held['commit_before']}"]


def compared(held: dict[str, Any]) -> str:
    """Return how many cases ended as required with an older commit."""
    if "commit_before" not in held:
        return ""
    right = sum(row.get("before") == "as required" for row in held["rows"])
    return f"The same cases with commit {held['commit_before']}: {right}."


def kills(held: dict[str, Any]) -> list[str]:
    """Return the section on killed runs."""
    rows = held["rows"]
    total, same = (sum(row[key] for row in rows) for key in ("killed", "identical"))
    lines = [
        (
            f"`{row['output']}`" + (", scenes in tiles" if row["tiles"] else ""),
            ", ".join(f"SIG{name}" for name in row["signals"]),
            row["killed"],
            row["cut_off"],
            f"{row['identical']} of {row['killed']}",
        )
        for row in sorted(rows, key=lambda row: (row["tiles"], row["signals"]))
    ]
    return [
        "## Killed and resumed\n",
        f"{total} runs were sent a signal at a random moment and then resumed. {same} of {total} outputs are "
        "identical, byte for byte, to that of an uninterrupted run, with no files left over. Runs hit before their "
        "first shard was full, or after their last, left no journal; the others were interrupted mid-run.\n",
        table.rows(["output", "signal", "runs", "interrupted mid-run", "identical after --resume"], lines),
    ]


def faults(held: dict[str, Any]) -> list[str]:
    """Return the section on failing disks and sessions."""
    rows = held["rows"]
    right = sum(row["as_promised"] for row in rows)
    lines = [
        (
            row["fault"],
            "nothing: the run succeeds" if row["code"] == 0 else shown(row["message"]),
            row["code"],
            "yes" if row["kept"] else "-",
            "identical" if row["identical"] else "DIFFERS",
        )
        for row in rows
    ]
    return [
        "## Failing disks, inputs and sessions\n",
        "A preloaded library (`benchmarks/reliability/faults.c`) makes system calls fail for certain files; sessions "
        "fail inside the process of the run. The program itself is unchanged. "
        f"{right} of {len(rows)} faults end as required: with one line, exit code 2 and no output, or with no effect. "
        "After each fault the run is resumed without it, and its output compared with that of an uninterrupted run.\n",
        table.rows(["fault", "message", "exit code", "finished images kept", "after --resume"], lines),
    ]


def fuzzing(held: dict[str, Any]) -> list[str]:
    """Return the section on fuzzing."""
    rows = held["rows"]
    lines = [
        (
            f"`{row['target'].removeprefix('test_')}`",
            f"{row['cpu_seconds']:.0f}",
            f"{row['executions']:,}",
            f"{row['edges']:,}" if "edges" in row else "-",
            f"{row['slowest_seconds']:.2f}",
            f"{max(0, row['resident_end_kib'] - row['resident_start_kib']) / 1024:.0f}",
            row.get("earlier", 0),
            len(row["findings"]),
            row["day"],
        )
        for row in rows
    ]
    header = [
        "target",
        "CPU s",
        "inputs",
        "edges",
        "slowest, s",
        "MiB more at the end",
        "findings before",
        "now",
        "measured",
    ]
    total = sum(row["cpu_seconds"] for row in rows) / 60
    machines = {row["day"]: row["machine"] for row in rows}
    return [
        "## Fuzzing\n",
        f"{len(rows)} targets, {sum(row['executions'] for row in rows):,} inputs in {total:.0f} CPU minutes. A finding "
        "is a crash, a traceback, a wrong result, an input that takes more than 5 s, or memory that grows by 300 MB. "
        "Edges are the steps from line to line that the inputs took in this project's code (not counted at first); "
        "findings before are those of earlier runs, mended since.\n",
        table.rows(header, lines),
        "".join(f"{day}: {machine}.\n" for day, machine in sorted(machines.items())),
    ]


# In the order of the page.
SECTIONS = (("kills", kills), ("one_pid", one_pid), ("faults", faults), ("silent", silent), ("fuzzing", fuzzing))


def elsewhere() -> list[str]:
    """Return the sections made from other result files."""
    found = []
    if (table.RESULTS / "bad_inputs.md").exists():
        first = (table.RESULTS / "bad_inputs.md").read_text().split("\n\n")[2].strip()
        found.append(f"## Wrong and hostile inputs\n\n{first} [Full list](../benchmarks/results/bad_inputs.md).\n")
    if (table.RESULTS / "stuck.json").exists():
        found.append(stuck(json.loads((table.RESULTS / "stuck.json").read_text("utf-8"))))
    if (table.RESULTS / "ray_faults.json").exists():
        found.append(on_ray(json.loads((table.RESULTS / "ray_faults.json").read_text("utf-8"))))
    return found


def stuck(held: dict[str, Any]) -> str:
    """Return the section on what once hung, ended in a traceback or took all memory."""
    lines = [
        [row["case"], shown(row["message"]) if row["message"] else "nothing", row["code"], row["result"]]
        for row in held["rows"]
    ]
    header = ["case", "what is said", "exit code", "result", *with_before(held, lines)]
    right = sum(row["as_required"] for row in held["rows"])
    told = f"Written by `python -m benchmarks.reliability.stuck`: {right} of {len(lines)} end as required."
    told = f"{told} {compared(held)}".rstrip()
    memory = "Peak memory of scenes against its formula: [scene_memory.md](../benchmarks/results/scene_memory.md)."
    ends = f"{held['machine']}; {held['versions']}. {memory}\n"
    return f"## Never stuck, no traceback, bounded memory\n\n{told}\n\n{table.rows(header, lines)}\n{ends}"


def on_ray(held: dict[str, Any]) -> str:
    """Return the section on runs that lost workers or nodes."""
    header = ["lost at random moments", "times", "runs", "identical to a local run"]
    lines = [[row["fault"], row["faults"], row["runs"], f"{row['identical']} of {row['runs']}"] for row in held["rows"]]
    told = "Speed, and the overhead of the cluster: [ray.md](../benchmarks/results/ray.md)."
    return f"## On Ray\n\n{table.rows(header, lines)}\n{held['machine']}; {held['versions']}. {told}\n"


def told_by(held: dict[str, Any]) -> str:
    """Return the day and machine of the figures."""
    return f"Measured on {held['day']}. {held['machine']}.\n"


def shown(text: str) -> str:
    """Return a message as a table cell."""
    return "`" + text.removeprefix("error: ").replace("|", "\\|").replace("`", "'") + "`"


if __name__ == "__main__":
    sys.exit(main())
