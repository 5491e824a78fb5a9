"""A process of its own without torch that runs commands of the engine and the exporters, one after the other.

Commands run as their entry points run them; one that hangs or ends the process is counted and a new process started.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from statistics import median
from time import perf_counter
from typing import Any

SECONDS = 300
# How often each image of a file is run in a timing.
REPEATED = 8
LONGEST = 160


class Worker:
    """Runs commands and measurements in another process."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, program: str, *arguments: object) -> str:
        """Run ``engine`` or ``exporters``; return "" when it went well, else what it said, in one line."""
        return self._ask(("command", program, [str(argument) for argument in arguments]))

    def measure(self, name: str, *arguments: Any) -> Any:
        """Run one of the functions below; return its result, or a text: what went wrong."""
        return self._ask(("measure", name, arguments))

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.pipe.close()
            self.process.kill()
            self.process.wait()
            self.process = None

    def _ask(self, job: tuple[Any, ...]) -> Any:
        if self.process is None:
            self.pipe, theirs = Pipe()
            number = theirs.fileno()
            self.process = subprocess.Popen([sys.executable, "-m", __name__, str(number)], pass_fds=[number])
            theirs.close()
        self.pipe.send(job)
        try:
            if self.pipe.poll(SECONDS):
                return self.pipe.recv()
            told = f"no end after {SECONDS} s"
        except EOFError:
            told = f"the process died with exit code {self.process.wait(SECONDS)}"
        self.close()
        return told


def serve(pipe: Connection) -> None:
    """Answer jobs until the other side closes."""
    while True:
        try:
            kind, name, arguments = pipe.recv()
        except EOFError:
            return
        if kind == "command":
            pipe.send(run_command(name, arguments))
        else:
            try:
                pipe.send(MEASURES[name](*arguments))
            except Exception as error:  # the table says so
                pipe.send(shortened(f"{type(error).__name__}: {error}"))


def run_command(program: str, arguments: Sequence[str]) -> str:
    """Run a command line in this process; return "" or its last words."""
    from engine.utils import console

    if program == "engine":
        from engine.cli import app
    else:
        from exporters.cli import app
    with tempfile.TemporaryFile("w+") as said:
        kept = [os.dup(number) for number in (1, 2)]
        for number in (1, 2):
            os.dup2(said.fileno(), number)
        code: object = 0
        try:
            console.exit_code(lambda: app(list(arguments)))
        except SystemExit as left:
            code = left.code
        except BaseException as error:  # no command may end so; the table says it
            print(f"\nTRACEBACK {type(error).__name__}: {error}", file=sys.stderr)
            code = 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, old in zip((1, 2), kept, strict=True):
                os.dup2(old, number)
                os.close(old)
        said.seek(0)
        lines = [line.strip(" │╭╮╰╯─\n") for line in said.read().splitlines()]
    if not code:
        return ""
    told = [line for line in lines if line.startswith(("error:", "TRACEBACK"))] or [line for line in lines if line]
    return shortened(told[-1] if told else f"exit code {code}")


def shortened(text: str) -> str:
    """Return one line that fits into a table."""
    text = " ".join(text.split()).replace("|", "/")
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def alone_against_engine(path: str, tiles: str, facts: dict[str, Any], rounds: int) -> tuple[float, float, float]:
    """Return images/s of the engine, of a plain loop of onnxruntime over single images, and of bare sessions.

    The bare sessions run side by side, one per core with one thread each, on an image that is prepared already, and
    nothing is made of their maps. In turns; medians.
    """
    import numpy as np
    import onnxruntime

    from engine import Ensemble

    pixels = np.repeat(np.load(tiles)["images"], REPEATED, axis=0)
    engine = Ensemble.open([path], sample=pixels[0], **facts)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    mean, std = (np.asarray(facts[key], np.float32) for key in ("mean", "std"))

    def prepared(image: Any) -> Any:
        scaled = (image.astype(np.float32) * np.float32(facts["scale"]) - mean) / std
        return np.ascontiguousarray(scaled.transpose(2, 0, 1))[None]

    def plain() -> None:
        for image in pixels:
            session.run(None, {name: prepared(image)})[0][0].argmax(0).astype(np.uint8)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    cores = os.cpu_count() or 1
    bare = [onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]) for _ in range(cores)]
    image = prepared(pixels[0])

    def one(alone: Any) -> None:
        for _ in range(len(pixels) // cores):
            alone.run(None, {name: image})

    def side_by_side() -> None:
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(one, bare))

    calls = (lambda: engine.predict(pixels), plain, side_by_side)
    taken: tuple[list[float], ...] = tuple([] for _ in calls)
    for turn in range(rounds + 1):
        for times, call in zip(taken, calls, strict=True):
            began = perf_counter()
            call()
            if turn:
                times.append(perf_counter() - began)
    ours, loop, most = (len(pixels) / median(times) for times in taken)
    return ours, loop, most


def resizing(path: str, side: int, rounds: int) -> tuple[tuple[int, ...], float, float]:
    """Return the shape of a net's maps for an image, and the seconds of net and of enlarging, on one thread each."""
    import numpy as np
    import onnxruntime

    from engine.models.adapt.size import resize_into

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    image = {session.get_inputs()[0].name: np.zeros((1, 3, side, side), np.float32)}
    net, enlarge = [], []
    out: np.ndarray | None = None
    for turn in range(3 * rounds + 1):
        began = perf_counter()
        maps = session.run(None, image)[0]
        middle = perf_counter()
        # Into memory that is used again, as a worker does.
        out = np.empty((1, maps.shape[1], side, side), np.float32) if out is None else out
        resize_into(out, maps, (side, side))
        if turn:
            net.append(middle - began)
            enlarge.append(perf_counter() - middle)
    return maps.shape, median(net), median(enlarge)


MEASURES = {"alone_against_engine": alone_against_engine, "resizing": resizing}

if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
