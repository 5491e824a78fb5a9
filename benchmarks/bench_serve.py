"""A plan behind HTTP against the same plan on the command line: images/s, latencies, minutes of load, stop under load.

    python -m benchmarks.bench_serve                          # all of it into benchmarks/results/serve.md
    python -m benchmarks.bench_serve --only speed --minutes 3 # a part; the others are kept from their last run
    python -m benchmarks.bench_serve --page                   # the page again from the stored figures

Each client asks for one tile after the other over a connection of its own; all run in one process, on the same cores as
the server. Every answer is compared with the mask that ``engine ensemble`` wrote for that tile.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

import numpy as np

from benchmarks import table
from engine.samples.scenes import generate
from engine.serve.answers import npy_bytes
from tests.helpers.load import Loaded, load, post

ROOT = Path(__file__).parents[1]
PLAN = ROOT / "zoo" / "ensemble.toml"
PACKAGES = ("starlette", "uvicorn", "httptools", "fastapi", "numpy", "numba", "onnxruntime-gpu", "onnxruntime")
CLIENTS = (1, 8, 32)
BAR, LOOP_BAR = 0.9, 1.5
# Figures of the parts, beside the page that is made of them.
STORED = table.STANDING / "serve.json"
Answers = list[bytes]
PARTS = ["speed", "load", "stop", "workers"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, default=PLAN)
    parser.add_argument("--tiles", type=int, default=256, help="different tiles that are asked for in turn")
    parser.add_argument("--seconds", type=float, default=12.0, help="of each measurement of speed")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=10.0, help="of the load that watches memory")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--page", action="store_true", help="write the page from the stored figures alone")
    options = parser.parse_args()
    stored = table.RESULTS / STORED.name
    found: dict[str, Any] = json.loads(stored.read_text()) if stored.exists() else {}
    if not options.page:
        with tempfile.TemporaryDirectory() as folder:
            tiles = Path(folder) / "tiles.npy"
            np.save(tiles, generate(options.tiles).images)
            requests = [post("/predict", npy_bytes(tile)) for tile in np.load(tiles)]
            _, masks = ensemble(options.plan, tiles)
            answers = [npy_bytes(mask) for mask in masks]
            parts = {"speed": speed, "load": long_load, "stop": stopped, "workers": workers}
            for part in options.only:
                found[part] = parts[part](options, tiles, requests, answers)
                found[part]["commit"] = table.commit()
                stored.write_text(json.dumps(found, indent=1) + "\n")
    print(write(found))


def ensemble(plan: Path, tiles: Path) -> tuple[float, np.ndarray]:
    """Run ``engine ensemble``; return images/s without start and end, and the masks."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "masks.npy"
        command = [sys.executable, "-m", "engine.cli", "ensemble", "--plan", str(plan), "-i", str(tiles), "--json"]
        done = subprocess.run([*command, "-o", str(output)], capture_output=True, text=True, cwd=ROOT, check=True)
        return float(json.loads(done.stdout)["images_per_second"]), np.load(output)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def running(*command: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start a server; yield its process and port once it answers."""
    port = free_port()
    line = [sys.executable, "-m", *command]
    process = subprocess.Popen([part.replace("PORT", str(port)) for part in line], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                sleep(0.1)
        sleep(0.5)
        yield process, port
    finally:
        process.terminate()
        process.wait()


def served(options: argparse.Namespace, *more: str) -> tuple[str, ...]:
    return ("engine.cli", "serve", str(options.plan), "--port", "PORT", *more)


def speed(options: argparse.Namespace, tiles: Path, requests: Answers, answers: Answers) -> dict[str, Any]:
    """Measure server, loops and command in turns; ratios are of one round, since the machine's speed drifts."""
    rounds: list[dict[str, float]] = []
    found: dict[str, Any] = {"clients": {}, "plan": options.plan.name, "tiles": options.tiles, "rounds": rounds}
    loop = ("benchmarks.serving.plain_loop", str(options.plan), "PORT")
    with running(*served(options)) as ours, running(*loop) as threads, running(*loop, "--no-threads") as plain:
        turns = [("server", ours[1], clients) for clients in CLIENTS]
        turns += [("loop", threads[1], CLIENTS[-1]), ("loop without threads", plain[1], CLIENTS[-1])]
        for _, port, _ in turns[2:]:
            load(("127.0.0.1", port), requests, answers, 8, 2.0)
        for number in range(options.rounds):
            rates = {}
            # Each takes its turn at every place of a round.
            for name, port, clients in [*turns[number % 5 :], *turns[: number % 5]]:
                # One at a time is steady at once; batches come in lumps.
                seconds = options.seconds / (1 if clients == CLIENTS[-1] else 3)
                done = load(("127.0.0.1", port), requests, answers, clients, seconds)
                rates[f"{name} {clients}"] = done.rate(seconds / 6, seconds)
                if name == "server":
                    found["clients"].setdefault(str(clients), []).append(told(done))
            rates["command"] = ensemble(options.plan, tiles)[0]
            rounds.append(rates)
            print({name: round(rate, 1) for name, rate in rates.items()}, file=sys.stderr)
    return found


def told(done: Loaded) -> dict[str, Any]:
    return {
        "answers": len(done.latencies),
        "p50": done.percentile(50),
        "p99": done.percentile(99),
        "wrong": done.wrong,
        "lost": done.lost,
        "statuses": done.statuses,
    }


def resident(process: subprocess.Popen[bytes]) -> int:
    """Return the resident memory of a process in bytes."""
    text = Path(f"/proc/{process.pid}/statm").read_text()
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")


def long_load(options: argparse.Namespace, tiles: Path, requests: Answers, answers: Answers) -> dict[str, Any]:
    """Load the server for minutes; memory after the first twentieth and at the end, every answer compared."""
    with running(*served(options)) as (process, port):
        total = 60 * options.minutes
        parts = [load(("127.0.0.1", port), requests, answers, CLIENTS[-1], total / 20)]
        memory = [resident(process)]
        for _ in range(19):
            parts.append(load(("127.0.0.1", port), requests, answers, CLIENTS[-1], total / 20))
            memory.append(resident(process))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
            metrics = response.read().decode()
    images = sum(float(line.split()[1]) for line in metrics.splitlines() if line.startswith("maskfuse_images_total"))
    batches = [line for line in metrics.splitlines() if line.startswith("maskfuse_batch_images_count")]
    return {
        "minutes": options.minutes,
        "answers": sum(len(part.latencies) for part in parts),
        "wrong": sum(part.wrong for part in parts),
        "lost": sum(part.lost + part.refused for part in parts),
        "others": sum(sum(part.statuses.values()) - len(part.latencies) for part in parts),
        "memory": memory,
        "images_per_batch": images / float(batches[0].split()[1]),
    }


def stopped(options: argparse.Namespace, tiles: Path, requests: Answers, answers: Answers) -> dict[str, Any]:
    """Send SIGTERM in the middle of a load, several times."""
    runs = []
    for turn in range(3):
        with running(*served(options)) as (process, port):
            command = f"sleep {2 + turn / 3}; kill -TERM {process.pid}"
            killer = subprocess.Popen(["sh", "-c", command])
            done = load(("127.0.0.1", port), requests, answers, CLIENTS[-1], 8.0)
            began = perf_counter()
            code = process.wait()
            killer.wait()
            runs.append({**told(done), "refused": done.refused, "exit": code, "waited": perf_counter() - began})
            print(runs[-1], file=sys.stderr)
    return {"runs": runs, "signal": signal.SIGTERM.name}


def workers(options: argparse.Namespace, tiles: Path, requests: Answers, answers: Answers) -> dict[str, Any]:
    """Measure the memory of servers with more and more workers under load."""
    memory = {}
    for count in (1, 2, 4):
        with running(*served(options, "--workers", str(count))) as (process, port):
            done = load(("127.0.0.1", port), requests, answers, CLIENTS[-1], options.seconds)
            memory[str(count)] = resident(process)
            print(
                f"{count} workers: {memory[str(count)] / 1e6:.0f} MB, {done.rate(1, options.seconds):.1f}/s",
                file=sys.stderr,
            )
    return {"memory": memory, "models": sum(path.stat().st_size for path in options.plan.parent.glob("*.onnx"))}


def write(found: dict[str, Any]) -> Path:
    told = {"speed": _speed, "load": _load, "stop": _stop, "workers": _workers}
    sections = [section(found[part]) for part, section in told.items() if part in found]
    return table.write("serve", "A plan behind HTTP", "python -m benchmarks.bench_serve", PACKAGES, *sections)


def _speed(found: dict[str, Any]) -> str:
    rounds = found["rounds"]

    def row(name: str, title: str, clients: str = "", latencies: Sequence[str] = ("", "")) -> tuple[str, ...]:
        share = median(one[name] / one["command"] for one in rounds)
        return (title, clients, f"{median(one[name] for one in rounds):.1f}", f"{share:.2f}", *latencies)

    last = str(CLIENTS[-1])
    lines = [row("command", "`engine ensemble`")]
    for clients, runs in found["clients"].items():
        latencies = [f"{median(run[key] for run in runs):.0f}" for key in ("p50", "p99")]
        lines.append(row(f"server {clients}", "`engine serve`", clients, latencies))
    for name, title in (("loop", "nets in threads"), ("loop without threads", "nets in the event loop")):
        lines.append(row(f"{name} {last}", f"FastAPI + ONNX Runtime, {title}", last))
    bars = []
    for what, other, bar in (
        (f"`engine serve` at {last} clients, of `engine ensemble`", "command", BAR),
        ("the same, of FastAPI with nets in the event loop", f"loop without threads {last}", LOOP_BAR),
        ("the same, of FastAPI with nets in threads", f"loop {last}", LOOP_BAR),
    ):
        shares = [one[f"server {last}"] / one[other] for one in rounds]
        verdict = "reached" if median(shares) >= bar else "missed"
        bars.append((what, f"{median(shares):.2f}", f"{min(shares):.2f} to {max(shares):.2f}", f"{bar:.2f}", verdict))
    wrong = sum(run["wrong"] + run["lost"] for runs in found["clients"].values() for run in runs)
    answers = sum(run["answers"] for runs in found["clients"].values() for run in runs)
    text = (
        f"## Speed\n\nPlan `{found['plan']}`, {found['tiles']} tiles of 64x128 in turn, a tile a request (.npy in and "
        f"out), commit {found['commit']}.\n{len(rounds)} rounds, all in turns; medians, and shares within a round. The "
        f"clients run on the same cores.\nOf {answers:,} answers of the server {wrong} were wrong or lost.\n"
    )
    head = ("what", "clients", "images/s", "of the command", "p50 ms", "p99 ms")
    return "\n".join((text, table.rows(head, lines), table.rows(("bar", "median", "range", "required", ""), bars)))


def _load(found: dict[str, Any]) -> str:
    memory = [size / 1e6 for size in found["memory"]]
    return (
        f"## {found['minutes']:g} minutes of load\n\n{CLIENTS[-1]} clients, commit {found['commit']}: "
        f"{found['answers']:,} answers, {found['wrong']} wrong, {found['lost']} lost, {found['others']} of another "
        f"status than 200;\n{found['images_per_batch']:.1f} images per batch. Resident memory after each twentieth of "
        f"the time, in MB:\n{', '.join(f'{size:.0f}' for size in memory)};\nfrom the second to the last it grew by "
        f"{memory[-1] - memory[1]:.0f} MB.\n"
    )


def _stop(found: dict[str, Any]) -> str:
    lines = [
        (index + 1, f"{run['answers']:,}", run["wrong"], run["lost"], run["refused"], run["exit"])
        for index, run in enumerate(found["runs"])
    ]
    return (
        f"## {found['signal']} under load\n\n{CLIENTS[-1]} clients, which connect again where the server closes a "
        f"connection, commit {found['commit']}. Refused are connections after the server stopped listening.\n\n"
        + table.rows(("run", "answers", "wrong", "lost", "refused", "exit code"), lines)
    )


def _workers(found: dict[str, Any]) -> str:
    lines = [(count, f"{size / 1e6:.0f}") for count, size in found["memory"].items()]
    return (
        f"## Memory by workers\n\nOne process; all workers share the open nets ({found['models'] / 1e6:.1f} MB of "
        f"files).\nResident memory after a load of {CLIENTS[-1]} clients, commit {found['commit']}.\n\n"
        + table.rows(("workers", "MB"), lines)
    )


if __name__ == "__main__":
    main()
