"""The reader ahead and the writer behind: order, bounds, errors from either side, and Ctrl-C in a real process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from engine import EngineError, Ensemble
from engine.errors import InputError, OutputError
from engine.runs.predict import run
from engine.sources.base import from_array
from engine.utils.threads import Ahead, Behind, abandonable, ahead, in_order
from tests.conftest import ROOT
from tests.helpers.nets import save_graph

DEPTH = 3


def test_reading_ahead_keeps_order_and_its_bound():
    read: list[int] = []

    def items():
        for index in range(50):
            read.append(index)
            yield index

    most = 0
    for taken, item in enumerate(Ahead(items(), DEPTH)):
        assert item == taken
        most = max(most, len(read) - taken)
    assert read == list(range(50))
    # One in use, DEPTH waiting, one in the reader's hand.
    assert most <= DEPTH + 2


def test_an_error_in_reading_comes_behind_what_was_read():
    def items():
        yield 1
        raise InputError("torn")

    found = []
    with pytest.raises(InputError, match="torn"):
        for item in Ahead(items(), DEPTH):
            found.append(item)
    assert found == [1]


def test_a_reader_that_nobody_listens_to_ends():
    closed = threading.Event()

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    for _ in Ahead(items(), 1):
        break
    assert closed.wait(5)


def test_writing_behind_keeps_order_and_waits_for_the_last():
    written: list[int] = []
    with Behind(lambda item: (time.sleep(0.001), written.append(item)), DEPTH) as later:
        for item in range(40):
            later(item)
    assert written == list(range(40))


def test_an_error_in_writing_ends_the_run():
    def refuse(item: int) -> None:
        if item == 2:
            raise OutputError("full")

    with pytest.raises(OutputError, match="full"), Behind(refuse, 1) as later:
        for item in range(1000):
            later(item)
    with pytest.raises(OutputError, match="full"), Behind(refuse, 1) as later:
        later(2)


def test_another_error_is_not_hidden_by_the_writers():
    with pytest.raises(KeyError), Behind(lambda item: None, 1) as later:
        later(1)
        raise KeyError


def test_a_writer_that_fails_stops_the_pipeline(world):
    class Full:
        def write(self, ids, labels):
            raise OutputError("no space")

    before = threading.active_count()
    with pytest.raises(OutputError, match="no space"):
        run(Ensemble.open(world.models), from_array(np.repeat(world.images, 20, axis=0)), Full(), batch_size=1)
    assert threading.active_count() <= before + 1


def test_an_ensemble_runs_again_after_it_was_interrupted(world):
    ensemble = Ensemble.open(world.models)
    want = ensemble.predict(world.images)
    ensemble.interrupt()
    with pytest.raises(EngineError, match="fails on a batch"):
        ensemble.logits(next(from_array(world.images).batches(1)))
    ensemble.resume()
    np.testing.assert_array_equal(ensemble.predict(world.images), want)


def slow_member(path: Path) -> Path:
    """A net that takes seconds for a batch: many large convolutions one after the other."""
    from onnx import TensorProto, helper

    from engine.models.contract import ModelContract

    names = ["image", *(f"x{index}" for index in range(100)), "out"]
    nodes = [helper.make_node("Conv", ["image", "first"], ["x0"], pads=[3, 3, 3, 3])]
    nodes += [helper.make_node("Conv", [names[i], "middle"], [names[i + 1]], pads=[3, 3, 3, 3]) for i in range(1, 100)]
    nodes += [helper.make_node("Conv", [names[100], "last"], ["out"])]
    weights = {
        "first": np.ones((32, 1, 7, 7), np.float32),
        "middle": np.full((32, 32, 7, 7), 1e-3, np.float32),
        "last": np.ones((5, 32, 1, 1), np.float32),
    }
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, "H", "W"])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 5, "H", "W"])
    contract = ModelContract(("a", "b", "c", "d", "e"), input_layout="NCHW")
    return save_graph(path, nodes, [image], [out], weights, contract)


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C reaches a process group there")
def test_ctrl_c_stops_within_a_second_and_leaves_nothing(tmp_path):
    slow_member(tmp_path / "slow.onnx")
    np.save(tmp_path / "images.npy", np.zeros((64, 64, 128), np.uint8))
    command = [sys.executable, "-m", "engine.cli", "ensemble", "-m", "slow.onnx", "-i", "images.npy", "-o", "masks.npy"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*command, "--batch-size", "64"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".masks.npy*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    # A batch of this net takes a minute; this is how long a run may hang before the test gives up, not its speed.
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"interrupted" in told
    assert b"Traceback" not in told
    assert not (tmp_path / "masks.npy").exists()
    assert not list(tmp_path.glob(".masks.npy*.partial*"))


ABANDON = """
import gc, sys
from engine.sources.open import open_source

gc.set_threshold(100, 2, 2)
kept = [open_source(path) for path in sys.argv[1:]]
for turn in range(400):
    batches = iter(kept[turn % len(kept)].batches(2))
    next(batches)
    cycle = [batches]
    cycle.append(cycle)
    del batches, cycle
for source in kept:
    assert sum(len(batch.ids) for batch in source.batches(7)) == 40
print("done")
"""


def test_sources_that_are_left_in_the_middle_stop_nothing(tmp_path: Path):
    """The collector closes them in whatever thread it runs, also in one of theirs that is just starting."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    encoded = []
    (tmp_path / "pictures").mkdir()
    for index in range(40):
        path = tmp_path / "pictures" / f"{index}.png"
        Image.new("L", (8, 4), index).save(path)
        encoded.append({"bytes": path.read_bytes(), "path": path.name})
    pq.write_table(pa.table({"image": encoded}), tmp_path / "rows.parquet", row_group_size=10)
    command = [sys.executable, "-c", ABANDON, str(tmp_path / "rows.parquet"), str(tmp_path / "pictures")]
    # Seconds; so long may it hang before the test gives up.
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"done\n", b"")


def left_in(generator) -> threading.Thread:
    """Close a generator in a thread of its own, as the garbage collector may, and return that thread."""
    closing = threading.Thread(target=generator.close, daemon=True)
    closing.start()
    return closing


def test_a_generator_that_is_forgotten_waits_for_no_call_in_progress():
    """Whoever collects it may keep a lock that the call waits for."""
    lock, begun = threading.Lock(), threading.Event()

    def slow(item: int) -> int:
        if item:
            begun.set()
            with lock:
                pass
        return item

    def pooled():
        with abandonable(1, "test") as pool:
            yield from in_order((pool.submit(slow, item) for item in (0, 1)), 1)

    for generator in (ahead(slow, (0, 1), 1, 2), pooled()):
        begun.clear()
        with lock:
            next(generator)
            assert begun.wait(5)
            closing = left_in(generator)
            closing.join(5)
            assert not closing.is_alive()


def test_a_run_and_its_reader_that_are_forgotten_wait_for_nothing(world, capfd, monkeypatch):
    lock, begun = threading.Lock(), threading.Event()
    ensemble = Ensemble.open(world.models)
    logits = ensemble.logits

    def slow(batch, *more):
        if batch.start:
            begun.set()
            with lock:
                pass
        return logits(batch, *more)

    monkeypatch.setattr(ensemble, "logits", slow)
    stream = ensemble.stream(from_array(np.repeat(world.images, 4, axis=0)), batch_size=1, workers=1)
    generator = iter(stream)
    with lock:
        next(generator)
        assert begun.wait(5)
        closing = left_in(generator)
        closing.join(5)
        assert not closing.is_alive()
    stream.wait()
    assert capfd.readouterr().err == ""


def test_results_keep_the_calls_order_and_only_so_many_are_under_way():
    submitted: list[int] = []

    def calls(pool: ThreadPoolExecutor):
        for item in range(30):
            submitted.append(item)
            yield pool.submit(lambda item=item: (time.sleep(0.002 * (item % 3)), item)[1])

    with ThreadPoolExecutor(3) as pool:
        for taken, item in enumerate(in_order(calls(pool), 4)):
            assert item == taken
            assert len(submitted) <= taken + 5
    assert submitted == list(range(30))
