"""The graph that a GPU runs, run on the CPU: bound buffers, lanes, padding; the labels of the CPU's kernels."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from engine import Ensemble
from engine.errors import EngineError, InputError, ModelError, NotFiniteError, PlanError
from engine.graph.fusion import STRATEGIES
from engine.inference import on_device
from engine.inference.device import DeviceFusion, why_not
from engine.inference.early_exit import EarlyExit
from engine.inference.prediction import BadImages
from engine.inference.tuning import tune
from engine.models.runtimes import GRAPH_ON_CPU, RuntimeOptions
from engine.models.runtimes.bound import BoundGraph
from engine.models.runtimes.providers import Choice
from engine.runs.opened import open_ensemble
from engine.runs.options import Options
from engine.runs.plan import read_plan
from engine.runs.provenance import run_header
from engine.sources.base import Batch, from_array
from exporters import pack as packing
from tests.helpers.foreign_nets import CASES, pixels_of, save_foreign
from tests.helpers.nets import save_member, save_net, save_specialists
from tests.helpers.world import World

OPTIONS = RuntimeOptions(GRAPH_ON_CPU)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("device")
    nets = [save_member(folder / f"{name}.onnx", seed) for seed, name in enumerate("ab")]
    return [*nets, save_specialists(folder / "five")]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 240, (11, 8, 16)).astype(np.uint8)


def on_graph(ensemble: Ensemble, images: np.ndarray, options: RuntimeOptions = OPTIONS, **sizes: int) -> Ensemble:
    """The ensemble on its graph, by the way that a user's command takes."""
    told = tune(ensemble, from_array(images), options, **(sizes or {"batch_size": 4, "workers": 2})).told
    assert ensemble.device is not None, told
    return ensemble


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"suppress": (0, 3), "bias": (0.0, 0.1, -0.2, 0.0, 0.3), "weights": [1, 2, 0.5]},
        {"threshold": 0.3, "prior": (1.0, 2.0, 0.5, 1.0, 3.0), "min_region": 3},
        {"suppress": (), "flips": "both", "vote_stage": "fused"},
        {"views": "d4"},
        {"views": ["transpose"], "view_mean": "probabilities", "suppress": (0,)},
    ],
    ids=lambda more: "-".join(more) or "plain",
)
def test_labels_are_those_of_the_kernels(strategy, more, models, images):
    ensemble = Ensemble.open(models, strategy=strategy, **more)
    want, ties = [], 0
    for part in ensemble.stream(from_array(images), batch_size=4, workers=1):
        want, ties = [*want, part.labels], ties + part.ties
    on_graph(ensemble, images)
    parts = list(ensemble.stream(from_array(images), batch_size=4, workers=2))
    # Eleven images in batches of four: the last is filled up.
    assert [len(part.ids) for part in parts] == [4, 4, 3]
    assert (np.concatenate([part.labels for part in parts]) != np.concatenate(want)).sum() <= 2
    assert sum(part.ties for part in parts) == ties
    assert all(sum(part.member_seconds) > 0 for part in parts)


@pytest.mark.parametrize("name", CASES)
def test_every_adaptation_of_a_foreign_net(name, tmp_path):
    case = CASES[name]
    save_foreign(tmp_path / "net.onnx", 3, **case.shape)
    for size in case.sizes:
        images = pixels_of(case, size, count=5)
        ensemble = Ensemble.open(tmp_path / "net.onnx", stated=case.facts, strategy=case.strategy, sample=images[0])
        want = ensemble.predict(images)
        assert (on_graph(ensemble, images).predict(images) != want).sum() <= 1


@pytest.mark.parametrize("kind", [np.bool_, np.uint16, np.float32])
def test_pixels_of_every_type(kind, models, images):
    images = (images > 100) if kind is np.bool_ else (images * np.float32(1.7)).astype(kind)
    ensemble = Ensemble.open(models)
    want = ensemble.predict(images)
    np.testing.assert_array_equal(on_graph(ensemble, images).predict(images), want)


def test_a_batch_of_any_size_and_images_of_another(models, images):
    ensemble = on_graph(Ensemble.open(models), images)
    plain = Ensemble.open(models)
    for given in (images, images[:, :4, :6], images[:1]):
        np.testing.assert_array_equal(ensemble.predict(given, batch_size=9), plain.predict(given, batch_size=9))


def test_a_net_of_one_fixed_batch_decides_the_batch(tmp_path, images):
    save_foreign(tmp_path / "net.onnx", batch=3, size=(8, 16), reshape=True)
    facts = {"scale": 1 / 255, "activation": "logits"}
    ensemble = Ensemble.open(tmp_path / "net.onnx", stated=facts, sample=images[0][..., None])
    want = ensemble.predict(images)
    np.testing.assert_array_equal(on_graph(ensemble, images).predict(images), want)


def test_multi_label_and_packed_ensembles(tmp_path, models, images):
    for seed in (0, 1):
        promised = {"kind": "multilabel", "thresholds": (0.5, 0.3, 0.6, 0.5, 0.5), "ignored_class": None}
        save_member(tmp_path / f"{seed}.onnx", seed, promised=promised)
    several = Ensemble.open([tmp_path / "0.onnx", tmp_path / "1.onnx"], strategy="vote", min_region=2)
    want = several.predict(images)
    np.testing.assert_array_equal(on_graph(several, images).predict(images), want)
    tables = "".join(f'[[members]]\nmodel = "{path}"\n' for path in models)
    (tmp_path / "plan.toml").write_text(tables)
    packed = Ensemble.open(packing.pack(tmp_path / "plan.toml", tmp_path / "whole.onnx").path)
    want = packed.predict(images)
    np.testing.assert_array_equal(on_graph(packed, images).predict(images), want)


def test_nan_is_refused_by_name_and_left_out_where_allowed(tmp_path, models, images):
    poison = save_member(tmp_path / "poison.onnx", poisoned=True)
    bad = images.copy()
    bad[6, 0, 0] = 255
    ensemble = on_graph(Ensemble.open([*models, poison]), images)
    with pytest.raises(NotFiniteError, match="member poison computes NaN or infinity for image 6:"):
        ensemble.predict(bad)
    with pytest.raises(NotFiniteError) as caught:  # in a batch that is run in parts
        ensemble.device.run(Batch(0, [str(index) for index in range(11)], bad[..., None]))
    assert caught.value.positions == [6]
    stream = ensemble.stream(from_array(bad), batch_size=4, workers=2)
    stream.bad = BadImages()
    parts = list(stream)
    assert [name for part in parts for _, name, _ in part.skipped] == ["6"]
    want = Ensemble.open([*models, poison]).predict(np.delete(bad, 6, axis=0))
    np.testing.assert_array_equal(np.concatenate([part.labels for part in parts]), want.reshape(10, -1))


def test_a_packed_file_names_the_image_too(tmp_path, images):
    save_member(tmp_path / "poison.onnx", poisoned=True)
    (tmp_path / "plan.toml").write_text('[[members]]\nmodel = "poison.onnx"\n')
    ensemble = Ensemble.open(
        packing.pack(tmp_path / "plan.toml", tmp_path / "whole.onnx", tiles=images[..., None]).path
    )
    bad = images.copy()
    bad[2, 0, 0] = 255
    on_graph(ensemble, images)
    with pytest.raises(NotFiniteError, match="for image 2:"):
        ensemble.predict(bad)


def test_labels_that_are_no_class_give_the_engines_own_error(tmp_path, images):
    save_foreign(tmp_path / "net.onnx", 3, head="argmax")
    facts = {"kind": "labels", "scale": 1 / 255}
    three = Ensemble.open(tmp_path / "net.onnx", stated={**facts, "classes": ("a", "b", "c")}, strategy="vote")
    assert on_graph(three, images).predict(images).max() == 2
    ensemble = Ensemble.open(tmp_path / "net.onnx", stated={**facts, "classes": ("a", "b")}, strategy="vote")
    ensemble.device = DeviceFusion(ensemble, GRAPH_ON_CPU, "float32", 4, 1)
    with pytest.raises(ModelError, match="outputs label 2; its classes are 0 to 1"):
        ensemble.predict(images)


def test_images_that_no_member_takes(tmp_path, models):
    save_foreign(tmp_path / "bytes.onnx", kind=2)
    ensemble = Ensemble.open(tmp_path / "bytes.onnx", stated={"classes": ("a", "b", "c"), "activation": "logits"})
    device = DeviceFusion(ensemble, GRAPH_ON_CPU, "float32", 4, 1)
    with pytest.raises(InputError, match="convert them to 8 bit"):
        device.build(np.zeros((1, 12, 20, 1), np.float32))


def test_float16_is_told(models, images):
    ensemble = on_graph(Ensemble.open(models), images, RuntimeOptions(GRAPH_ON_CPU, precision="fp16"))
    want = Ensemble.open(models).predict(images)
    assert (ensemble.predict(images) == want).mean() > 0.98
    assert ensemble.device.told == "one graph on cpu-graph in fp16"
    half = Ensemble.open(models)
    (told,) = tune(half, from_array(images), RuntimeOptions(GRAPH_ON_CPU, precision="fp16"), 4, 1).told
    assert told.startswith("members run in float16: labels agree with float32 on ")


def test_float16_that_overflows_is_not_used_or_named(tmp_path, images):
    save_net(tmp_path / "net.onnx", 5)
    facts = {"scale": 3000.0, "activation": "logits", "input_layout": "NCHW"}
    ensemble = Ensemble.open(tmp_path / "net.onnx", stated=facts, sample=images[0][..., None])
    ensemble.device = DeviceFusion(ensemble, GRAPH_ON_CPU, "fp16", 4, 1)
    with pytest.raises(ModelError, match="infinity for image 0 in float16, and numbers in float32: leave out"):
        ensemble.predict(images)
    ensemble.device = None
    tuned = tune(ensemble, from_array(images), RuntimeOptions(GRAPH_ON_CPU, precision="fp16"), 4, 1)
    assert "--precision fp16 is not used: member net computes NaN" in tuned.told[0]
    assert ensemble.device.precision == "float32"


def test_what_cannot_be_one_graph_is_fused_by_the_kernels_and_said(models, images, tmp_path):
    staple = Ensemble.open(models, strategy="staple")
    tuned = tune(staple, from_array(images), OPTIONS, 4, 1)
    assert staple.device is None
    assert tuned.told == ["logits are fused on the CPU: strategy staple"]
    assert why_not(Ensemble.open(models, strategy="vote"), early=True) == "early exit"
    early = Ensemble.open(models, strategy="vote", early_exit=EarlyExit())
    assert tune(early, from_array(images), OPTIONS, 4, 1).told == ["logits are fused on the CPU: early exit"]
    (told,) = tune(Ensemble.open(models), from_array(images), OPTIONS, 4, 1, scored=True).told
    assert told == "logits are fused on the CPU: other members and strategies are scored as well"
    scenes = Ensemble.open(models)
    assert tune(scenes, None, OPTIONS).told == ["logits are fused on the CPU: logits of tiles are blended"]


def test_without_onnx_the_extra_is_named(models, images, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    (told,) = tune(Ensemble.open(models), from_array(images), OPTIONS, 4, 1).told
    assert "pip install 'maskfuse[cuda]'" in told


def test_a_graph_that_disagrees_is_not_used(models, images, monkeypatch):
    wrong = DeviceFusion.run

    def other(self, batch):
        found = wrong(self, batch)
        found.labels[:, ::2] = 4 - found.labels[:, ::2]
        return found

    monkeypatch.setattr(DeviceFusion, "run", other)
    ensemble = Ensemble.open(models)
    (told,) = tune(ensemble, from_array(images), OPTIONS, 4, 1).told
    assert ensemble.device is None
    assert "logits are fused on the CPU: labels agree with float32 on" in told


def test_additional_variants_need_the_logits(world: World):
    ensemble = on_graph(Ensemble.open(world.models), world.images)
    labels = from_array(world.labels, "labels")
    parts = list(ensemble.stream(from_array(world.images), labels, ensemble.every_variant(), 4, 1))
    assert len(parts[0].confusion) > 3
    (own,) = ensemble.stream(from_array(world.images), labels, (), 7, 1)
    each = np.concatenate([part.confusion[ensemble.variant] for part in parts])
    np.testing.assert_array_equal(own.confusion[ensemble.variant], each)


def test_a_device_that_fails_at_first_use(models, images, monkeypatch):
    """Under ``auto`` the CPU takes over with one line; a provider that was named is an error of one line."""
    monkeypatch.setattr(on_device, "choose_provider", lambda requested: Choice("cuda", "provider cuda"))
    monkeypatch.setattr("engine.models.runtimes.bound.open_raw", _refusing)
    ensemble = Ensemble.open(models)
    tuned = tune(ensemble, from_array(images), RuntimeOptions("auto"), 4, 1)
    assert tuned.told == ["provider cuda", "provider cpu; cuda fails at first use: no CUDA-capable device"]
    assert ensemble.device is None
    assert {net.session.provider for net in ensemble.nets} == {"cpu"}
    with pytest.raises(PlanError, match="--provider cuda fails at first use: no CUDA-capable device; use --provider"):
        tune(Ensemble.open(models), from_array(images), RuntimeOptions("cuda"), 4, 1)


def _refusing(*given: object) -> None:
    raise ModelError("no CUDA-capable device")


def test_the_members_sessions_move_only_when_their_logits_are_needed(world: World, monkeypatch):
    """On a device the nets run inside the graph; opening each once more would cost a second."""
    monkeypatch.setattr(on_device, "choose_provider", lambda requested: Choice("cuda"))
    monkeypatch.setattr("engine.inference.device.BoundGraph", _on_cpu)
    moved: list[str] = []
    monkeypatch.setattr(on_device, "_open_there", lambda ensemble, provider: moved.append(provider))
    ensemble = Ensemble.open(world.models)
    tune(ensemble, from_array(world.images), RuntimeOptions("cuda"), 4, 1)
    ensemble.predict(world.images)
    assert moved == []
    list(ensemble.stream(from_array(world.images), from_array(world.labels, "labels"), ensemble.every_variant(), 4, 1))
    assert moved == ["cuda"]


def _on_cpu(model: bytes, provider: str, precision: str) -> object:
    assert provider == "cuda"
    return BoundGraph(model, "cpu", precision)


def test_a_run_says_what_ran_it(world: World):
    ensemble = Ensemble.open(world.models)
    before = run_header(ensemble, from_array(world.images), "")["run_by"]
    after = run_header(on_graph(ensemble, world.images), from_array(world.images), "")["run_by"]
    assert set(after.values()) == {"one graph on cpu-graph in float32"}
    assert before.keys() == after.keys()


def test_a_stopped_device_ends_and_runs_again(models, images):
    ensemble = on_graph(Ensemble.open(models), images)
    ensemble.device.stop()
    with pytest.raises(EngineError):
        ensemble.device.run(Batch(0, ["0"], images[:1, ..., None]))
    ensemble.device.resume()
    assert ensemble.device.run(Batch(0, ["0"], images[:1, ..., None])).labels.shape == (1, 128)


def test_a_plan_with_weights_and_specialists(tmp_path, models, images):
    for path in models:
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / path.name)
    tables = "".join(f'[[members]]\nmodel = "{path.name}"\nweight = {at + 1}\n' for at, path in enumerate(models))
    (tmp_path / "plan.toml").write_text(f'strategy = "mean-prob"\nsuppress = [2]\nflips = "horizontal"\n{tables}')
    ensemble = open_ensemble(read_plan(tmp_path / "plan.toml"), Options(), None)
    want = ensemble.predict(images)
    assert (on_graph(ensemble, images).predict(images) != want).sum() <= 1
