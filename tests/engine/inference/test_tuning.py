"""Both runtimes give the same labels; what is below float32 is asked for and told; what is missing is said."""

from __future__ import annotations

import hashlib
import sys

import numpy as np
import pytest

from engine import Ensemble
from engine.bench import bench
from engine.errors import ModelError, PlanError
from engine.inference.execution import Execution, executions_of, fastest_execution
from engine.inference.tuning import tune
from engine.models.opening import open_net
from engine.models.runtimes import DEFAULT, RUNTIMES, RuntimeOptions
from engine.models.runtimes.onnxruntime import OnnxSession
from engine.runs.durable.resume import recorded_runtime
from engine.runs.provenance import plan_hash, resolved_plan
from engine.sources.base import from_array
from engine.sources.slices import repeated
from tests.helpers.nets import FIVE, save_member, save_specialists


def settled(models, images, *runtime_options, **sizes):
    ensemble = Ensemble.open(models)
    return ensemble, tune(ensemble, from_array(images), RuntimeOptions(*runtime_options), **sizes)


@pytest.mark.parametrize("layouts", [("NCHW", "NCHW"), ("NHWC", "NHWC"), ("NCHW", "NHWC")])
def test_a_session_writes_where_it_is_told_or_gives_its_own(tmp_path, world, layouts):
    save_member(tmp_path / "net.onnx", input_layout=layouts[0], output_layout=layouts[1])
    member = open_net(tmp_path / "net.onnx")
    fed = member.prepare(world.images[..., None])
    out = np.full((len(fed), 5, 8 * 16), np.nan, np.float32)
    member.run(fed, out, (8, 16))
    plain = member.session.run(member.output_name, fed)
    plain = plain.transpose(0, 3, 1, 2) if layouts[1] == "NHWC" else plain
    np.testing.assert_array_equal(out, plain.reshape(out.shape))


def test_parts_of_a_batch_never_show(world, tmp_path):
    models = [world.models, save_specialists(tmp_path / "five")]
    want = Ensemble.open(models).predict(world.images)
    ensemble = Ensemble.open(models)
    for parts in ([1, 2, 3, 4], [4, 3, 2, 1]):
        ensemble.parts = parts
        np.testing.assert_array_equal(ensemble.predict(world.images, batch_size=7, workers=2), want)


@pytest.mark.parametrize("runtime", [name for name in RUNTIMES if name != DEFAULT])
def test_every_runtime_gives_the_same_labels(runtime, world, tmp_path):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    models = [world.models, save_specialists(tmp_path / "five")]
    want = Ensemble.open(models).predict(world.images)
    ensemble, how = settled(models, world.images, "cpu", runtime, batch_size=4)
    assert {net.session.runtime for net in ensemble.nets} == {runtime}
    # Seven images in batches of four: the last is filled up.
    got = ensemble.predict(world.images, 4, how.workers)
    assert (got == want).mean() > 0.999
    assert runtime in how.told[0]


@pytest.mark.parametrize("held", [2**29, 0])
def test_openvino_makes_no_more_requests_than_calls_at_once(tmp_path, world, monkeypatch, held):
    pytest.importorskip("openvino")
    from engine.models.runtimes import openvino
    from engine.models.runtimes.openvino import OpenVinoSession

    monkeypatch.setattr(openvino, "MOST_HELD", held)
    session = OpenVinoSession(save_member(tmp_path / "net.onnx"), streams=2)
    ensemble = Ensemble.open(tmp_path / "net.onnx")
    ensemble.use(0, Execution((session,), 2))
    want = Ensemble.open(tmp_path / "net.onnx").predict(world.images)
    for _ in range(4):  # each with threads of its own
        assert (ensemble.predict(world.images, batch_size=2, workers=2) == want).mean() > 0.999
    # A net too large to be held once per thread is compiled once, for all of them.
    assert len(session._compiled) == (0 if held else 1)
    assert sum(map(len, session._idle.values())) <= 2
    assert not session._busy
    session.stop()
    with pytest.raises(ModelError, match="stopped"):
        session.run("out", np.zeros((2, 1, 8, 16), np.float32))
    session.resume()
    assert session.run("out", np.zeros((1, 1, 8, 16), np.float32)).shape == (1, 5, 8, 16)


def test_bf16_is_told_and_changes_the_plans_hash(world):
    openvino = pytest.importorskip("openvino")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bfloat16")
    plain = plan_hash(Ensemble.open(world.models))
    ensemble, how = settled(world.models, world.images, "cpu", "openvino", "bf16")
    lowered = [net for net in ensemble.nets if net.session.precision == "bf16"]
    told = how.told[-1]
    assert ("labels agree with float32 on" in told) == bool(lowered)
    assert plan_hash(ensemble) != plain
    assert resolved_plan(ensemble)["arithmetic"] == {"runtime": "openvino", "precision": "bf16"}


def test_float32_never_takes_a_quantised_file(world, tmp_path):
    path = save_member(tmp_path / "net.onnx")
    note = {"precision_of_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    save_member(tmp_path / "net_int8.onnx", promised={"notes": note})
    member = Ensemble.open(path).members[0]
    precisions = [way.precision for way in executions_of(member, RuntimeOptions("cpu", "onnxruntime", "bf16"), 4, 1)]
    assert precisions == ["float32"]
    precisions = [way.precision for way in executions_of(member, RuntimeOptions("cpu", "onnxruntime", "int8"), 4, 1)]
    assert precisions == ["float32", "int8"]


def test_a_quantised_file_of_another_net_is_left_alone(tmp_path):
    path = save_member(tmp_path / "net.onnx")
    save_member(tmp_path / "net_int8.onnx", promised={"notes": {"precision_of_sha256": "0" * 64}})
    member = Ensemble.open(path).members[0]
    assert len(executions_of(member, RuntimeOptions("cpu", "onnxruntime", "int8"), 4, 1)) == 1


def test_without_openvino_the_extra_is_named(world, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(PlanError, match=r"pip install 'maskfuse\[openvino\]'"):
        settled(world.models, world.images, "cpu", "openvino")


def test_what_openvino_cannot_compile_falls_to_onnx_runtime_only_under_auto(tmp_path, world):
    pytest.importorskip("openvino")
    from engine.models.runtimes.openvino import OpenVinoSession

    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"OpenVINO cannot compile .*use --runtime onnxruntime"):
        OpenVinoSession(broken)

    class Refusing(OnnxSession):
        def run(self, output_name, prepared, out=None):
            raise ModelError("OpenVINO cannot compile")

    path = save_member(tmp_path / "net.onnx")
    member = Ensemble.open(path).members[0]
    good, bad = Execution((OnnxSession(path),), 2), Execution((Refusing(path),), 2)
    sample = next(from_array(world.images).batches(4))
    assert fastest_execution(member, [bad, good], sample, 1, 0.0) is good
    with pytest.raises(ModelError, match="cannot compile"):
        fastest_execution(member, [bad], sample, 1, 0.0)


def test_the_faster_way_is_taken_and_an_even_one_is_not(tmp_path, world):
    path = save_member(tmp_path / "net.onnx")
    member = Ensemble.open(path).members[0]

    class Sleeping(OnnxSession):
        seconds = 0.0

        def run(self, output_name, prepared, out=None):
            import time

            time.sleep(self.seconds)
            return super().run(output_name, prepared, out)

    slow, fast = Sleeping(path), Sleeping(path)
    slow.seconds, fast.seconds = 0.05, 0.01
    ways = [Execution((slow,), 4), Execution((fast,), 4)]
    sample = next(from_array(world.images).batches(4))
    assert fastest_execution(member, ways, sample, 1, 0.0) is ways[1]
    assert fastest_execution(member, ways[::-1], sample, 1, 0.0) is ways[1]


def test_images_that_are_bad_do_not_end_the_warm_up(world):
    images = world.images.astype(np.float32)
    images[0] = np.nan
    ensemble, how = settled(world.models, images, "cpu", "onnxruntime", "float32")
    assert how.batch_size >= 1
    assert len(ensemble.predict(world.images)) == len(images)


def test_given_numbers_are_kept_and_negative_ones_refused(world):
    _, how = settled(world.models, world.images, "cpu", batch_size=3, workers=2)
    assert (how.batch_size, how.workers) == (3, 2)
    for sizes in ({"batch_size": -1}, {"workers": -1}):
        with pytest.raises(PlanError, match="above 0"):
            settled(world.models, world.images, "cpu", **sizes)


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr("engine.inference.alone.SECONDS", 0.001)
    monkeypatch.setattr("engine.inference.alone.CHOOSING_SECONDS", 0.001)


def test_a_benchmark_tells_all_it_should(world, short):
    ensemble, how = settled(world.models, world.images, "cpu")
    found = bench(ensemble, repeated(from_array(world.images), 20), how, rounds=1)
    told = found.as_dict()
    assert [member["name"] for member in told["members"]] == ["a", "b", "c"]
    assert told["harmonic_limit"] == pytest.approx(
        1 / sum(1 / m["images_per_second"] for m in told["members"]), rel=1e-3
    )
    assert told["share_of_limit"] == pytest.approx(found.rates[0] / found.limits[0], abs=1e-4)
    assert found.limits[0] == pytest.approx(found.limit)
    assert list(told["stages"]) == ["read", "infer", "fuse", "decode", "write"]
    assert 0 < sum(told["stages"].values()) < 1.5
    assert told["images"] == 20
    assert told["peak_bytes"] > 10_000_000
    for member in told["members"]:
        assert f"{member['layout']}, batches of {member['batch_size']}" in member["tried"]
        assert member["images_per_second"] > 0


def test_repeated_images_are_the_images_over_and_over(world):
    source = repeated(from_array(world.images), 17)
    pixels = np.concatenate([batch.pixels for batch in source.batches(4)])[..., 0]
    np.testing.assert_array_equal(pixels, np.resize(world.images, (17, 8, 16)))
    assert len(source) == 17
    assert len(FIVE) == 5


def test_the_command_prints_tables_or_json(engine, world, short):
    import json

    arguments = ("bench", "-m", world.models, "-i", world.images_file, "--images", "9", "--rounds", "1")
    shown = engine(*arguments)
    assert shown.code == 0
    assert "harmonic limit" in shown.out
    told = json.loads(engine(*arguments, "--json").out)
    assert told["images"] == 9
    assert engine("bench", "-m", world.models, "--images", "0").code == 2


@pytest.fixture
def long_run(monkeypatch):
    """Every run counts as long, and the last candidate as the fastest."""
    pytest.importorskip("openvino")
    monkeypatch.setattr("engine.inference.tuning.LONG_SECONDS", 0.0)
    monkeypatch.setattr("engine.inference.tuning.fastest_execution", lambda member, executions, *_: executions[-1])


def test_a_long_run_takes_the_faster_runtime_and_says_so(world, long_run):
    ensemble = Ensemble.open(world.models)
    want = ensemble.predict(world.images)
    how = tune(ensemble, from_array(world.images), RuntimeOptions("cpu", stated=False))
    assert {net.session.runtime for net in ensemble.nets} == {"openvino"}
    assert how.told == ["openvino runs the nets: faster than onnxruntime here, by measurement (--runtime decides)"]
    assert resolved_plan(ensemble)["arithmetic"] == {"runtime": "openvino", "precision": "float32"}
    assert (ensemble.predict(world.images) == want).mean() > 0.999


@pytest.mark.parametrize("stated", [True, False])
def test_a_stated_runtime_and_a_short_run_stay_with_it(world, stated, monkeypatch):
    if stated:
        monkeypatch.setattr("engine.inference.tuning.LONG_SECONDS", 0.0)
    ensemble = Ensemble.open(world.models)
    how = tune(ensemble, from_array(world.images), RuntimeOptions("cpu", stated=stated))
    assert {net.session.runtime for net in ensemble.nets} == {DEFAULT}
    assert how.told == []
    assert "arithmetic" not in resolved_plan(ensemble)


def test_all_nets_change_or_none(world, long_run, monkeypatch):
    slow = Ensemble.open(world.models).members[1].name
    monkeypatch.setattr(
        "engine.inference.tuning.fastest_execution",
        lambda member, executions, *_: executions[0 if member.name == slow else -1],
    )
    ensemble = Ensemble.open(world.models)
    tune(ensemble, from_array(world.images), RuntimeOptions("cpu", stated=False))
    assert {net.session.runtime for net in ensemble.nets} == {DEFAULT}


def test_a_resumed_run_has_the_runtime_it_was_begun_with(world, long_run, engine, tmp_path):
    run = ("ensemble", "--models", world.models, "--input", world.images_file, "--output", tmp_path / "m.csv")
    assert "openvino runs the nets" in engine(*run).err
    assert recorded_runtime(tmp_path / "m.csv") == "openvino"
    again = engine(*run, "--resume")
    assert again.code == 0, again.err
    assert "is complete: nothing to resume" in again.err
    other = engine(*run, "--resume", "--runtime", "onnxruntime")
    assert other.code == 2
    assert "was made by another run" in other.err
    assert recorded_runtime(tmp_path / "none.csv") == ""
