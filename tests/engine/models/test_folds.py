"""The nets of a cross-validation as one member: their mean against a loop over onnxruntime, out of fold, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine import ContractError, Ensemble, InputError
from engine.errors import ModelError, PlanError
from engine.models.folds import fold_member, tile_keys, with_unseen
from engine.models.members import gather
from engine.models.net import Net
from engine.models.opening import open_net
from engine.runs.provenance import plan_hash
from engine.sources.base import Batch
from tests.helpers import reference
from tests.helpers.folds import run_of, save_folds
from tests.helpers.nets import FIVE, save_member, save_specialists
from tests.helpers.properties import examples

IMAGES = np.random.default_rng(6).integers(0, 240, (6, 7, 9)).astype(np.uint8)
SETS = {"none": ["plain"], "horizontal": ["plain", "horizontal"], "shift:1:-2": ["plain", "shift:1:-2"]}


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return save_folds(tmp_path_factory.mktemp("folds"), 4, IMAGES)


@pytest.fixture(scope="module")
def nets(folds: list[Path]) -> list[Net]:
    return [open_net(path) for path in folds]


def logits_of(ensemble: Ensemble, images: np.ndarray, names: list[str] | None = None) -> np.ndarray:
    batch = Batch(0, names or [str(at) for at in range(len(images))], images[..., None])
    (found,) = ensemble.logits(batch)[0].reshape(1, len(images), -1, *images.shape[1:])
    return found.copy()


@examples(20)
@given(
    st.permutations(range(4)).flatmap(lambda order: st.integers(2, 4).map(lambda count: order[:count])),
    arrays(np.uint8, (3, 6, 5), elements=st.integers(0, 240)),
    st.sampled_from(sorted(SETS)),
    st.sampled_from(["logits", "probabilities"]),
)
def test_its_scores_are_the_mean_of_its_nets(
    folds: list[Path], nets: list[Net], order: list[int], images: np.ndarray, views: str, mean: str
) -> None:
    ensemble = Ensemble([fold_member([nets[index] for index in order])], views=views, view_mean=mean)
    want = reference.fold_logits([run_of(folds[index]) for index in order], images, SETS[views], mean)
    np.testing.assert_allclose(logits_of(ensemble, images), want, atol=2e-4)
    assert [member.name for member in ensemble.members] == ["pan"]


@examples(15)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.sampled_from(sorted(SETS)), st.integers(0, 5))
def test_a_labelled_image_is_predicted_by_the_net_that_did_not_see_it(
    folds: list[Path], nets: list[Net], shown: list[int], views: str, skipped: int
) -> None:
    images = IMAGES[shown]
    names = [f"tile {at}" for at in range(len(shown))]
    member = with_unseen(fold_member(nets), names, tile_keys(images[..., None]), "tiles")
    unseen = [index % 4 for index in shown]
    assert member.unseen == dict(zip(names, unseen, strict=True))
    # Some of the images of a batch, as where others are done early or cannot be read.
    part = [at for at in range(len(shown)) if at != skipped] or [0]
    want = reference.fold_logits([*map(run_of, folds)], images[part], SETS[views], unseen=[unseen[at] for at in part])
    got = logits_of(Ensemble([member], views=views), images[part], [names[at] for at in part])
    np.testing.assert_allclose(got, want, atol=2e-4)


def test_a_tile_is_known_by_its_pixels_whatever_file_it_lies_in() -> None:
    tiles = IMAGES[..., None]
    keys = tile_keys(tiles)
    assert len(set(keys)) == len(keys)
    assert tile_keys(tiles.astype(np.float64)) == tile_keys(tiles.astype(np.int16)) == keys
    assert tile_keys(tiles + 0.2) == tile_keys(tiles[:, :, ::-1][:, :, ::-1]) == keys
    changed = tiles.copy()
    changed[2, 3, 4] += 1
    assert [a == b for a, b in zip(tile_keys(changed), keys, strict=True)] == [True, True, False, True, True, True]
    assert set(tile_keys(tiles.transpose(0, 2, 1, 3))).isdisjoint(keys)
    assert tile_keys(tiles.astype(np.uint16) + 300) == tile_keys((tiles.astype(np.uint16) + 300).astype(">u2"))


def test_the_order_of_the_folds_changes_nothing(folds: list[Path], tmp_path: Path) -> None:
    one, other = Ensemble.open([folds]), Ensemble.open([folds[::-1]])
    np.testing.assert_array_equal(logits_of(one, IMAGES), logits_of(other, IMAGES))
    assert plan_hash(one) == plan_hash(other)
    single = Ensemble.open(folds)
    assert len(single.members) == 4
    shares = Ensemble.open([folds], view_mean="probabilities")
    assert len({plan_hash(item) for item in (one, single, shares, Ensemble.open([folds[:3]]))}) == 4
    # As one member of several: the net beside it counts as much as all folds together.
    beside = save_member(tmp_path / "beside.onnx", 9)
    both = Ensemble.open([beside, folds])
    assert [len(member.nets) for member in both.members] == [1, 4]
    assert both.weights[:, 0].tolist() == [0.5, 0.5]


def test_what_is_no_cross_validation_is_refused(folds: list[Path], tmp_path: Path) -> None:
    nets = [open_net(path) for path in folds]
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(folds[0].read_bytes())
    others = {
        "are the same net": open_net(copy),
        "has classes": open_net(save_member(tmp_path / "two.onnx", 1, classes=("a", "b"))),
        r"has ignored_class 0, other\.onnx None": open_net(
            save_member(tmp_path / "other.onnx", 1, promised={"ignored_class": None})
        ),
        "of the kind specialist": open_net(save_specialists(tmp_path / "set", [2]) / "only_2.onnx"),
    }
    for words, net in others.items():
        with pytest.raises(ContractError, match=words):
            fold_member([nets[0], nets[1], net])
    with pytest.raises(ContractError, match="two nets or more"):
        fold_member(nets[:1])
    with pytest.raises(PlanError, match="named twice"):
        Ensemble.open([folds[0], folds])
    assert gather([fold_member(nets)])[0].contract.classes == FIVE


def test_tiles_of_no_fold_or_of_several_are_refused_with_their_number(folds: list[Path], tmp_path: Path) -> None:
    nets = [open_net(path) for path in folds]
    keys, ids = tile_keys(IMAGES[..., None]), list("abcdef")
    with pytest.raises(InputError, match=r"of 6 images 1 were held out by none of its 3 folds, 0 by several .*image d"):
        with_unseen(fold_member(nets[:3]), ids, keys, "val.npz")
    twice = open_net(save_member(tmp_path / "pan-fold9.onnx", 9, promised={"held_out": (keys[1], keys[2])}))
    with pytest.raises(InputError, match="0 were held out by none of its 5 folds, 2 by several"):
        with_unseen(fold_member([*nets, twice]), ids, keys, "val.npz")
    silent = open_net(save_member(tmp_path / "pan-fold8.onnx", 8))
    with pytest.raises(ContractError, match=r"pan-fold8\.onnx does not say which tiles .*held_out"):
        with_unseen(fold_member([*nets, silent]), ids, keys, "val.npz")
    with pytest.raises(InputError, match="two images have one name"):
        with_unseen(fold_member(nets), ["a"] * 6, keys, "val.npz")
    with pytest.raises(ModelError, match="no fold is known of image z"):
        logits_of(Ensemble([with_unseen(fold_member(nets), ids, keys, "val.npz")]), IMAGES[:1], ["z"])
    with pytest.raises(ContractError, match="held_out: 'abc'"):
        save_member(tmp_path / "bad.onnx", promised={"held_out": ("abc",)})
