"""The whole job against plain ONNX Runtime and NumPy: order, batches, workers, specialists."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from engine import EngineError, Ensemble
from engine.errors import ContractError, PlanError
from engine.fusion.decoding import Decoding
from engine.fusion.strategies import STRATEGIES
from engine.inference.prediction import Variant
from engine.runs.predict import run
from engine.sources.base import from_array
from tests.helpers import reference
from tests.helpers.nets import save_member, save_specialists


def plain_logits(paths, images):
    """(members, images, classes, pixels) straight from ONNX Runtime, one session after the other."""
    scaled = (images.astype(np.float32) / 255)[:, None]
    found = [onnxruntime.InferenceSession(path).run(["out"], {"image": scaled})[0] for path in paths]
    return np.stack(found).reshape(len(found), len(images), -1, images[0].size)


def labels_of(logits, strategy, weights=None, allowed=None):
    allowed = np.ones(logits.shape[2], bool) if allowed is None else allowed
    if strategy == "vote":
        return reference.vote_labels(logits, weights, allowed)[0]
    if strategy == "staple":
        return reference.argmax_allowed(reference.staple_scores(logits, weights, allowed), allowed)
    scores = reference.scores(strategy, logits, weights)
    return reference.argmax_allowed(scores, allowed)


def masks(labels, images):
    return labels.reshape(images.shape)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("suppress", [(), (0,)])
def test_a_prediction_equals_plain_onnxruntime_and_numpy(world, strategy, suppress):
    weights = [1, 2, 0.5]
    ensemble = Ensemble.open(world.models, strategy=strategy, weights=weights, suppress=suppress)
    allowed = np.array([c not in suppress for c in range(5)])
    want = labels_of(plain_logits(sorted(world.models.glob("*.onnx")), world.images), strategy, weights, allowed)
    got = ensemble.predict(world.images)
    assert (got == masks(want, world.images)).mean() > 0.999
    assert not np.isin(got, suppress).any()


def test_batches_and_workers_never_show(world):
    ensemble = Ensemble.open(world.models)
    want = ensemble.predict(world.images, batch_size=1, workers=1)
    for batch_size, workers in ((2, 1), (3, 2), (7, 4), (100, 3)):
        np.testing.assert_array_equal(ensemble.predict(world.images, batch_size, workers), want)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_members_order_never_shows(world, strategy):
    paths = sorted(world.models.glob("*.onnx"))
    one = Ensemble.open(paths, strategy=strategy, weights=[1, 2, 3]).predict(world.images)
    other = Ensemble.open(paths[::-1], strategy=strategy, weights=[3, 2, 1]).predict(world.images)
    np.testing.assert_array_equal(one, other)


def test_the_declared_class_is_suppressed_by_default(world):
    assert 0 not in Ensemble.open(world.models).predict(world.images)
    assert 0 in Ensemble.open(world.models, suppress=()).predict(world.images)
    assert 2 not in Ensemble.open(world.models, suppress=("bedrock",)).predict(world.images)


def test_specialists_are_one_member(world, tmp_path):
    folder = save_specialists(tmp_path / "five")
    ensemble = Ensemble.open(folder, suppress=())
    assert [member.name for member in ensemble.members] == ["set"]
    odds = plain_logits(sorted(folder.glob("*.onnx")), world.images)
    want = odds[:, :, 0].transpose(1, 0, 2).argmax(axis=1)
    np.testing.assert_array_equal(ensemble.predict(world.images), masks(want, world.images))


def test_calibration_bends_a_specialists_log_odds(world, tmp_path):
    folder = save_specialists(tmp_path / "five", wanted=range(4))
    promised = {"kind": "specialist", "class_id": 4, "group": "set", "bias": 3.0, "temperature": 2.0}
    save_member(folder / "only_4.onnx", 54, promised=promised)
    odds = plain_logits(sorted(folder.glob("*.onnx")), world.images)[:, :, 0].transpose(1, 0, 2).copy()
    odds[:, 4] = (odds[:, 4] + 3) / 2
    got = Ensemble.open(folder, suppress=()).predict(world.images)
    assert (got == masks(odds.argmax(axis=1), world.images)).mean() > 0.999


def test_the_specialist_of_a_suppressed_class_need_not_be_there(world, tmp_path):
    whole = Ensemble.open(save_specialists(tmp_path / "all"), suppress=(0,))
    without = Ensemble.open(save_specialists(tmp_path / "four", wanted=range(1, 5)), suppress=(0,))
    np.testing.assert_array_equal(whole.predict(world.images), without.predict(world.images))
    with pytest.raises(ContractError, match="lacks the nets of class 0"):
        Ensemble.open(tmp_path / "four", suppress=(1,))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_scoring_other_variants_changes_no_label(world, tmp_path, strategy):
    """What the specialist of class 0 says must not reach the suppressed result, whether it ran or not."""
    models = [world.models, save_specialists(tmp_path / "five")]
    ensemble = Ensemble.open(models, strategy=strategy)
    images, labels = from_array(world.images), from_array(world.labels, "labels")
    alone = np.concatenate([part.labels for part in ensemble.stream(images)])
    parts = list(ensemble.stream(images, labels, ensemble.every_variant()))
    np.testing.assert_array_equal(np.concatenate([part.labels for part in parts]), alone)


def test_every_variant_is_scored_as_if_alone(world):
    ensemble = Ensemble.open(world.models)
    images, labels = from_array(world.images), from_array(world.labels, "labels")
    outcome = run(ensemble, images, None, labels, ensemble.every_variant())
    assert len(outcome.scores) == 2 * (3 + len(STRATEGIES))
    logits = plain_logits(sorted(world.models.glob("*.onnx")), world.images)
    for variant, score in outcome.scores.items():
        chosen = logits if variant.member is None else logits[[variant.member]]
        allowed = np.array([c not in variant.decoding.suppress for c in range(5)])
        got = masks(labels_of(chosen, variant.strategy, None, allowed), world.images)
        want = reference.mean_iou(world.labels, got, 5, "keras-ignore")
        assert score.mean_iou("keras-ignore") == pytest.approx(want, abs=2e-3), variant
        assert outcome.rate(variant) > 0


def test_a_bad_member_stops_the_run_and_is_named(world, tmp_path):
    save_member(tmp_path / "poison.onnx", poisoned=True)
    images = world.images.copy()
    images[4, 2, 3] = 255
    with pytest.raises(EngineError, match="member poison computes NaN or infinity for image 4"):
        Ensemble.open([world.models, tmp_path / "poison.onnx"]).predict(images)


def test_impossible_batches(world):
    ensemble = Ensemble.open(world.models)
    for batch_size, workers in ((0, 1), (1, -1)):
        with pytest.raises(PlanError, match="at least 1 image"):
            ensemble.predict(world.images, batch_size, workers)


def test_already_scaled_floats_are_refused(world):
    with pytest.raises(EngineError, match="expects raw values"):
        Ensemble.open(world.models).predict((world.images / 255).astype(np.float32))


def test_a_variant_is_a_key():
    assert Variant("vote", Decoding(frozenset({0}))) == Variant("vote", Decoding(frozenset({0})))
    assert len({Variant("vote"), Variant("vote"), Variant("vote", member=0)}) == 2


def test_the_sample_scenes_hold_what_the_sample_nets_take():
    samples = Path(__file__).parents[3] / "engine" / "samples"
    from engine.samples.scenes import CLASSES, generate

    ensemble = Ensemble.open(samples)
    assert ensemble.classes == CLASSES
    assert ensemble.ignored_class == 0
    scenes = generate(24)
    outcome = run(
        ensemble, from_array(scenes.images), None, from_array(scenes.labels, "labels"), ensemble.every_variant()
    )
    raw = outcome.scores[Variant("mean-logit")].mean_iou("keras-ignore")
    own = outcome.scores[ensemble.variant].mean_iou("keras-ignore")
    assert own > max(raw + 0.05, 0.5)


@pytest.mark.parametrize("flips", ["none", "horizontal", "vertical", "both"])
def test_flips_average_the_logits_turned_back(world, flips):
    turns = {"none": [()], "horizontal": [(), (2,)], "vertical": [(), (1,)], "both": [(), (2,), (1,), (1, 2)]}[flips]
    paths = sorted(world.models.glob("*.onnx"))
    shape = (len(paths), len(world.images), 5, *world.images.shape[1:])
    summed = np.zeros(shape)
    for axes in turns:
        logits = plain_logits(paths, np.flip(world.images, axes)).reshape(shape)
        summed += np.flip(logits, [axis + 2 for axis in axes])
    want = reference.argmax_allowed(summed.mean(axis=0).reshape(len(world.images), 5, -1), np.ones(5, bool))
    got = Ensemble.open(world.models, suppress=(), flips=flips).predict(world.images)
    assert (got == masks(want, world.images)).mean() > 0.999
    if flips != "none":
        mirrored = Ensemble.open(world.models, suppress=(), flips=flips).predict(np.flip(world.images, turns[1]))
        np.testing.assert_array_equal(np.flip(mirrored, turns[1]), got)


def test_unknown_flips_are_listed(world):
    with pytest.raises(PlanError, match="none, horizontal, vertical, both"):
        Ensemble.open(world.models, flips="diagonal")


def test_small_regions_are_absorbed_last(world):
    pytest.importorskip("cc3d")
    from engine.fusion.regions import absorb_small_regions

    plain = Ensemble.open(world.models).predict(world.images)
    cleaned = Ensemble.open(world.models, min_region=6).predict(world.images)
    np.testing.assert_array_equal(cleaned, absorb_small_regions(plain, 6))
    assert (cleaned != plain).any()
