"""The logits of a comparison: of members with folds those of the net that was trained without the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.compare.store import LogitStore
from engine.models.views import named_views
from engine.runs.options import Options
from engine.select.validation import open_validation
from tests.helpers import reference
from tests.helpers.folds import run_of, save_folds
from tests.helpers.nets import save_member

IMAGES = np.random.default_rng(4).integers(0, 240, (9, 6, 8)).astype(np.uint8)


def test_labelled_images_are_predicted_out_of_fold_under_every_view(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = save_folds(tmp_path, 3, IMAGES)
    save_member(tmp_path / "unet.onnx", 8)
    (tmp_path / "pool.toml").write_text(
        '[[members]]\nfolds = ["pan-fold0.onnx", "pan-fold1.onnx", "pan-fold2.onnx"]\n[[members]]\nmodel = "unet.onnx"'
    )
    val = str(tmp_path / "val.npz")
    np.savez(val, images=IMAGES, labels=IMAGES % 5)
    data = open_validation(Options(plan=tmp_path / "pool.toml", input=val, labels=val), "")
    assert "pan: each of 9 images by the net that was trained without it" in capsys.readouterr().err
    store = LogitStore(tmp_path, data.ensemble, data.images, turned=True)
    store.fill(data.images, named_views("both")[1:], 4, 1, lambda count: None)
    slot = data.ensemble.fusion_order.index(0)
    for turned, views in ((False, ["plain"]), (True, ["plain", "horizontal", "vertical", "rotate180"])):
        want = reference.fold_logits([run_of(path) for path in paths], IMAGES, views, unseen=[0, 1, 2] * 3)
        got = store.read(np.arange(9), turned)[slot].reshape(want.shape)
        np.testing.assert_allclose(got, want, atol=2e-4)
