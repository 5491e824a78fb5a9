"""``engine serve`` as a process: SIGTERM under load, and what it refuses before it opens anything."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the server needs maskfuse[serve]")
pytest.importorskip("uvicorn", reason="the server needs maskfuse[serve]")

from engine.inference.ensemble import Ensemble
from engine.utils import optional
from tests.conftest import ROOT, Result
from tests.helpers.load import load, post
from tests.helpers.serving import npy
from tests.helpers.world import World

Engine = Callable[..., Result]


@pytest.mark.skipif(not hasattr(signal, "SIGTERM") or os.name == "nt", reason="Windows has no SIGTERM")
def test_sigterm_under_load_answers_every_accepted_request(world: World) -> None:
    line = [sys.executable, "-m", "engine.cli"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    served = [*line, "serve", str(world.models), "--port", "0"]
    process = subprocess.Popen(served, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    told = ""
    while "serving models at" not in told:
        told = process.stderr.readline()
        assert told, "the server ended"
    port = int(re.findall(r":(\d+) ", told)[0])
    requests = [post("/predict", npy(image)) for image in world.images]
    answers = [npy(mask) for mask in Ensemble.open(world.models).predict(world.images)]

    def stop() -> None:
        time.sleep(0.7)
        process.send_signal(signal.SIGTERM)

    stopping = threading.Thread(target=stop)
    stopping.start()
    found = load(("127.0.0.1", port), requests, answers, 24, 20.0)
    stopping.join()
    assert process.wait(60) == 0
    assert process.stderr.read().splitlines()[-1] == "stopped; every request was answered"
    assert (found.wrong, found.lost, set(found.statuses)) == (0, 0, {200})
    assert len(found.latencies) > 24
    assert found.refused == 24  # each client came once more, and nobody listened


def test_what_cannot_be_served_is_refused_in_one_line(
    world: World, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for arguments, told in (
            ((world.models, "--port", port), rf"cannot listen on 127.0.0.1:{port} \(.*\): choose another --port or"),
            ((world.models, "--host", "no.such.host.invalid"), r"--host no\.such\.host\.invalid --port 8000: "),
            ((world.models, "--port", 0, "--queue", 0), "--queue 0: at least 1 request"),
            ((world.models, "--max-upload", "big"), "--max-upload big: give a size, as in 4GB or 512MiB"),
            ((world.models, "--port", 70000), "--port 70000: give a number from 1 to 65535, or 0 for a free one"),
            ((tmp_path / "none.toml", "--port", 0), f"no such plan: {tmp_path}/none.toml"),
            ((world.models, "--port", 0, "--provider", "tpu"), "tpu"),
        ):
            done = engine("serve", *arguments)
            assert (done.code, len(done.err.splitlines())) == (2, 1), done.err
            assert re.search(told, done.err), done.err

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(optional, "import_module", missing)
    done = engine("serve", world.models)
    assert done.err == (
        "error: engine serve needs Starlette, uvicorn and prometheus-client: pip install 'maskfuse[serve]'\n"
    )
