"""Votes and STAPLE against SimpleITK, soft vote and MIoU against torch's own, where they are installed."""

import numpy as np
import pytest

from engine.fusion.fuse import fuse

SimpleITK = pytest.importorskip("SimpleITK")


def one_hot_logits(maps, classes):
    """Label maps (members, height, width) as logits that are sure of them."""
    logits = np.where(maps[:, None] == np.arange(classes)[:, None, None], 8.0, -8.0).astype(np.float32)
    return np.ascontiguousarray(logits.reshape(len(maps), 1, classes, -1))


def noisy_maps(seed, members, classes, wrong):
    """A blocky truth and members that each see another share of its pixels wrongly."""
    draw = np.random.default_rng(seed)
    truth = np.kron(draw.integers(0, classes, (4, 6)), np.ones((8, 8), int))
    maps = np.stack([truth] * members)
    for member, share in zip(maps, wrong, strict=True):
        hit = draw.random(truth.shape) < share
        member[hit] = draw.integers(0, classes, hit.sum())
    return truth, maps


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("members", [3, 5, 6])
def test_votes_equal_simpleitks_where_it_decides(seed, members):
    _, maps = noisy_maps(seed, members, 4, [0.3] * members)
    undecided = 99
    theirs = SimpleITK.GetArrayFromImage(
        SimpleITK.LabelVoting([SimpleITK.GetImageFromArray(m.astype(np.uint8)) for m in maps], undecided)
    )
    ours = fuse(one_hot_logits(maps, 4), "vote")
    labels = ours.labels.reshape(theirs.shape)
    decided = theirs != undecided
    np.testing.assert_array_equal(labels[decided], theirs[decided])
    assert ours.ties.sum() == (~decided).sum()


@pytest.mark.parametrize("seed", range(5))
def test_staple_equals_simpleitks(seed):
    truth, maps = noisy_maps(seed, 5, 4, [0.05, 0.2, 0.5, 0.6, 0.7])
    images = [SimpleITK.GetImageFromArray(m.astype(np.uint8)) for m in maps]
    chosen = SimpleITK.MultiLabelSTAPLEImageFilter()
    chosen.SetTerminationUpdateThreshold(1e-5)
    theirs = SimpleITK.GetArrayFromImage(chosen.Execute(images))
    ours = fuse(one_hot_logits(maps, 4), "staple").labels.reshape(truth.shape)
    # Both stop a little before the fixed point, each by its own measure.
    assert (ours == theirs).mean() > 0.995
    votes = fuse(one_hot_logits(maps, 4), "vote").labels.reshape(truth.shape)
    assert (ours == truth).mean() > (votes == truth).mean()


def test_soft_vote_equals_torchs():
    torch = pytest.importorskip("torch", reason="torch is not among the test dependencies; used where it is there")
    logits = np.random.default_rng(0).normal(0, 3, (4, 2, 5, 900)).astype(np.float32)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    mean = (torch.softmax(torch.from_numpy(logits).double(), dim=2) * weights[:, None, None, None]).sum(dim=0)
    top = mean.sort(dim=1).values
    clear = (top[:, -1] - top[:, -2] > 1e-5).numpy()
    np.testing.assert_array_equal(
        fuse(logits, "mean-prob", weights.numpy()).labels[clear], mean.argmax(dim=1).numpy()[clear]
    )
