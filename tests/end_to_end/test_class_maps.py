"""Members of other classes than the ensemble's: a plan maps them; every strategy against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.fusion.strategies import STRATEGIES
from engine.inference.ensemble import Ensemble
from engine.runs.opened import open_ensemble
from engine.runs.options import Options, planned
from engine.sources.base import from_array
from tests.conftest import Result
from tests.helpers import reference
from tests.helpers.foreign import Form, above_middle, drawn, nearest_level, save_foreign
from tests.helpers.nets import save_member, save_specialists

Engine = Callable[..., Result]
CLASSES = ("ground", "plant", "stone")
COUNT, SIZE = 4, (12, 16)
PIXELS = drawn(COUNT, *SIZE)
# Of each member: its classes, and the ensemble's class of each.
FINE = ("ground", "grass", "tree", "gravel", "rock")
TARGETS = {"plain": (0, 1, 2), "fine": (0, 1, 1, 2, 2), "few": (2, 0)}


def save_members(folder: Path) -> list[Path]:
    """Write three nets: of the ensemble's own classes, of five finer ones, and of two in another order."""
    options = {"size": SIZE, "promised": {"ignored_class": None}}
    return [
        save_member(folder / "plain.onnx", 1, CLASSES, **options),
        save_member(folder / "fine.onnx", 2, FINE, **options),
        save_member(folder / "few.onnx", 3, ("boulder", "ground"), **options),
    ]


PLAN = f"""
classes = {list(CLASSES)}
[[members]]
model = "plain.onnx"
weight = 1.0
[[members]]
model = "fine.onnx"
weight = 1.3
[members.map]
grass = "plant"
tree = "plant"
gravel = "stone"
rock = "stone"
[[members]]
model = "few.onnx"
weight = 1.7
[members.map]
boulder = "stone"
"""
KNOWN = np.array([[1, 1, 1], [1, 1, 1], [1, 0, 1]], bool)
WEIGHTS = np.array([1.0, 1.3, 1.7])


def opened(plan: Path, **options: object) -> Ensemble:
    job = Options(plan=plan, **options)  # type: ignore[arg-type]
    made = planned(job)
    assert made is not None
    return open_ensemble(made, job, from_array(PIXELS))


def raw_logits(folder: Path) -> list[np.ndarray]:
    """Each member's own logits (batch, classes, pixels), from ONNX Runtime."""
    import onnxruntime

    given = (PIXELS[:, None].astype(np.float32)) * np.float32(1 / 255)
    names = ("plain", "fine", "few")
    found = [onnxruntime.InferenceSession(folder / f"{name}.onnx").run(["out"], {"image": given})[0] for name in names]
    return [maps.reshape(COUNT, maps.shape[1], -1) for maps in found]


def mapped(folder: Path) -> np.ndarray:
    """(members, batch, classes, pixels): log-probabilities in the ensemble's classes."""
    made = zip(raw_logits(folder), TARGETS.values(), strict=True)
    return np.maximum(np.stack([reference.mapped_log_probabilities(*given, 3) for given in made]), -1e30)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    save_members(tmp_path)
    (tmp_path / "plan.toml").write_text(PLAN)
    return tmp_path / "plan.toml"


@pytest.mark.parametrize("strategy", ["mean-logit", "mean-prob", "vote", "staple", "borda", "entropy-weighted"])
def test_a_class_map_against_numpy(plan: Path, strategy: str) -> None:
    ensemble = opened(plan, strategy=strategy)
    assert ensemble.classes == CLASSES
    table = np.where(KNOWN, WEIGHTS[:, None], 0)
    table = table / table.sum(axis=0)
    np.testing.assert_allclose(ensemble.weights, table)
    masks = ensemble.predict(PIXELS).reshape(COUNT, -1)
    logits = mapped(plan.parent)
    weights = table
    if strategy in ("vote", "staple"):
        # One vote a member: a class that it does not know gets none of it.
        votes = np.eye(3)[logits.argmax(axis=2)].transpose(0, 1, 3, 2)
        scores = np.einsum("mbcp,mc->bcp", votes, table)
    elif strategy == "borda":
        above = (logits[:, :, :, None] > logits[:, :, None]).sum(axis=3) / 2
        scores = np.einsum("mbcp,mc->bcp", above, weights)
    elif strategy == "entropy-weighted":
        scores = reference.entropy_weighted_scores(logits, weights)
    elif strategy == "mean-prob":
        scores = reference.mean_prob_scores(logits, weights)
    else:
        scores = reference.mean_logit_scores(logits, weights)
    if strategy == "staple":
        scores = reference.staple_scores(logits, table.mean(axis=1))
    ordered = np.sort(scores, axis=1)
    sure = ordered[:, -1] - ordered[:, -2] > 1e-5
    assert sure.mean() > 0.9 or strategy == "borda"  # whose ranks are often equal
    np.testing.assert_array_equal(masks[sure], scores.argmax(axis=1)[sure])
    assert len(np.unique(masks)) > 1


def test_suppression_and_weights_are_in_the_ensembles_classes(plan: Path) -> None:
    text = PLAN.replace("[[members]]", "", 1)
    # The mapped member stands first: its own names and numbers must not be taken for the ensemble's.
    first, second = text.split("[[members]]")[1], text.split("[[members]]")[0].split("\n", 2)[2]
    text = f"classes = {list(CLASSES)}\n[[members]]\n{first}[[members]]\n{second}"
    text = text.replace("weight = 1.0", "weight = [2.6, 2.6, 1.3]")
    plan.write_text(text)
    ensemble = opened(plan, suppress=["plant"])
    assert ensemble.variant.decoding.suppress == {1}
    masks = ensemble.predict(PIXELS)
    assert 1 not in masks
    np.testing.assert_allclose(ensemble.weights, [[1 / 3, 1 / 3, 0.5], [2 / 3, 2 / 3, 0.5]])
    for name in ("rock", "3"):
        with pytest.raises(Exception, match=r"no class 'rock'|cannot suppress class 3"):
            opened(plan, suppress=[name])


def test_every_variant_runs_and_is_scored(plan: Path, engine: Engine, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", PIXELS)
    np.save(tmp_path / "truth.npy", nearest_level(PIXELS))
    place = ("-i", tmp_path / "images.npy", "-o", tmp_path / "m.npy", "--labels", tmp_path / "truth.npy")
    done = engine("ensemble", "--plan", plan, *place, "--json")
    assert done.code == 0, done.err
    for name in (*STRATEGIES, "plain", "fine", "few"):
        assert f'"name": "{name}"' in done.out
    ensemble = opened(plan)
    for index, logits in enumerate(mapped(tmp_path)):
        variant = ensemble.every_variant()[index]
        batch = next(from_array(PIXELS).batches(COUNT))
        labels, _ = ensemble.decode(ensemble.logits(batch)[0], variant, SIZE)
        assert (labels == logits.argmax(axis=1)).mean() > 0.999
        assert index != 2 or 1 not in labels


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('model = "few.onnx"\n[members.map]\nboulder = "stone"\n', "no member with a weight above 0 knows class 1"),
        (
            'model = "plain.onnx"\nweight = 0\n[[members]]\nmodel = "few.onnx"\n[members.map]\nboulder = "stone"\n',
            "no member with a weight above 0 knows class 1",
        ),
        (
            'model = "few.onnx"\n[members.map]\nrock = "stone"\n',
            "it has no class 'rock'; its classes are",
        ),
        ('model = "few.onnx"\n[members.map]\nboulder = "rock"\n', "boulder = 'rock' is no class of the ensemble"),
        ('model = "few.onnx"\n[members.map]\nground = ""\n', "none of its classes, boulder, ground, becomes one"),
        ('model = "few.onnx"\n[members.map]\nground = 3\n', "members.map"),
        ('model = "few.onnx"\nmap = "x"\n', "members.map: 'x' is not a table"),
        (
            'model = "set"\n[members.map]\nsoil = "ground"\n',
            "its kind is specialist; the classes of multi",
        ),
    ],
)
def test_impossible_maps_are_refused(plan: Path, engine: Engine, tmp_path: Path, text: str, told: str) -> None:
    save_specialists(tmp_path / "set", size=SIZE)
    plan.write_text(f"classes = {list(CLASSES)}\n[[members]]\n{text}")
    np.save(tmp_path / "images.npy", PIXELS)
    done = engine("ensemble", "--plan", plan, "-i", tmp_path / "images.npy", "-o", tmp_path / "m.npy")
    assert (done.code, done.out) == (2, "")
    assert told in done.err
    assert done.err.count("\n") == 1


def test_a_map_without_the_ensembles_classes_asks_for_them(plan: Path, engine: Engine, tmp_path: Path) -> None:
    plan.write_text('[[members]]\nmodel = "few.onnx"\n[members.map]\nboulder = "stone"\n')
    np.save(tmp_path / "images.npy", PIXELS)
    done = engine("ensemble", "--plan", plan, "-i", tmp_path / "images.npy", "-o", tmp_path / "m.npy")
    assert done.code == 2
    assert "state the ensemble's classes = [...] in the plan" in done.err


def test_labels_are_mapped_as_votes(engine: Engine, tmp_path: Path) -> None:
    """Ten labels onto two classes: nine that become one must not outvote the one that was said."""
    net = save_foreign(tmp_path / "net.onnx", Form(ending="labels3"))
    own = ["only", *(f"many {index}" for index in range(9))]
    many = "\n".join(f'"many {index}" = "rest"' for index in range(9))
    plan = tmp_path / "plan.toml"
    plan.write_text(
        f'classes = ["only", "rest"]\n[[members]]\nmodel = "{net.name}"\n'
        f'[members.contract]\nscale = "1/255"\nclasses = {own}\n[members.map]\n{many}\n'
    )
    np.save(tmp_path / "images.npy", PIXELS)
    place = ("-i", tmp_path / "images.npy", "-o", tmp_path / "m.npy")
    done = engine("ensemble", "--plan", plan, *place)
    assert done.code == 0, done.err
    np.testing.assert_array_equal(np.load(tmp_path / "m.npy"), (nearest_level(PIXELS) > 0).astype(np.uint8))
    plan.write_text(plan.read_text().replace('"many 3" = "rest"\n', '"many 3" = ""\n'))
    done = engine("ensemble", "--plan", plan, *place, "--overwrite")
    assert done.code == 2
    assert "it outputs labels, so it has no second choice where it says many 3" in done.err


def test_a_binary_net_joins_others(engine: Engine, tmp_path: Path) -> None:
    save_foreign(tmp_path / "net.onnx", Form(ending="logit"))
    plan = tmp_path / "plan.toml"
    plan.write_text(
        'classes = ["stone", "ground"]\n[[members]]\nmodel = "net.onnx"\n[members.contract]\nscale = "1/255"\n'
        'classes = ["background", "boulder"]\nforeground_threshold = 0.2\n[members.map]\nbackground = "ground"\n'
        'boulder = "stone"\n'
    )
    np.save(tmp_path / "images.npy", PIXELS)
    done = engine("ensemble", "--plan", plan, "-i", tmp_path / "images.npy", "-o", tmp_path / "m.npy")
    assert done.code == 0, done.err
    np.testing.assert_array_equal(np.load(tmp_path / "m.npy"), 1 - above_middle(PIXELS, 0.2))
