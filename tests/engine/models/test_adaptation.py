"""What is adapted is said in words, and nothing is said of a net that is taken as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.models.opening import inspect_net
from engine.runs.provenance import run_record
from tests.helpers.foreign import Form, drawn, save_foreign
from tests.helpers.nets import save_member

SCALE = {"scale": 1 / 255}
CASES: dict[str, tuple[Form, dict[str, object], list[str]]] = {
    "as it is": (Form(), {}, []),
    "NHWC": (Form(layout="NHWC", output_layout="NHWC", channels=3), {}, []),
    "a batch of 1": (Form(batch=1), {}, ["images run one by one"]),
    "a batch of 4": (Form(batch=4), {}, ["images run in groups of 4, the last one filled up"]),
    "types": (Form(takes="float16", gives="float64"), {}, ["input is float16", "output is float64"]),
    "bytes": (Form(takes="uint8", raw=True), {"scale": None}, ["input is uint8"]),
    "an output": (Form(auxiliary=True), {}, ["output out is read of aux, out"]),
    "constants": (Form(constants={"g": ()}), {"constants": {"g": 1.0}}, ["constant inputs: g"]),
    "bands": (Form(channels=2), {"bands": [3, 1]}, ["bands 3, 1 are taken"]),
    "bgr": (Form(channels=3), {"channel_order": "bgr"}, ["channels are turned from RGB to BGR"]),
    "a stride": (Form(divides=8), {"stride": 8}, ["sides are mirrored up to multiples of 8 and cut back"]),
    "resize": (Form(size=(16, 24)), {"fit": "resize"}, ["images are resized to 16x24 and maps back"]),
    "pad": (Form(size=(16, 24)), {"fit": "pad"}, ["images are mirrored up to multiples of 16x24, run as windows"]),
    "an eighth": (Form(reduced=8), {}, ["maps of 1/8 of the input's sides are resized (bilinear)"]),
    "nearest": (
        Form(reduced=2),
        {"maps_resize": "nearest"},
        ["maps of 1/2 of the input's sides are resized (nearest)"],
    ),
    "one map": (
        Form(ending="logit"),
        {"foreground_threshold": 0.25, "classes": ["sea", "ship"], "activation": "logits"},
        ["one map: sea or ship, decided at a probability of 0.25"],
    ),
    "labels": (Form(ending="labels3", gives="int32"), {"classes": ["a", "b", "c"]}, ["labels (int32): it votes"]),
}


@pytest.mark.parametrize("name", CASES)
def test_each_adaptation_has_its_words(name: str, tmp_path: Path) -> None:
    form, stated, told = CASES[name]
    net = save_foreign(tmp_path / "net.onnx", form)
    opened = inspect_net(net, {**SCALE, **stated})
    assert opened.questions == []
    assert opened.adapted == told
    assert list(opened.net("net").adapted) == told


def test_what_is_open_does_not_hide_what_is_adapted(tmp_path: Path) -> None:
    net = save_foreign(tmp_path / "net.onnx", Form(batch=2, ending="share"))
    opened = inspect_net(net)
    assert len(opened.questions) == 2  # the scale, and what its values are
    assert opened.contract is None
    assert opened.adapted[0] == "images run in groups of 2, the last one filled up"


def test_a_net_of_ours_is_taken_as_it_is(tmp_path: Path) -> None:
    assert inspect_net(save_member(tmp_path / "net.onnx")).adapted == []
    assert inspect_net(save_member(tmp_path / "fixed.onnx", size=(8, 16), batch=1)).adapted == ["images run one by one"]


def test_the_record_of_a_run_holds_it(tmp_path: Path) -> None:
    from engine import Ensemble

    save_foreign(tmp_path / "a.onnx", Form(batch=2))
    save_foreign(tmp_path / "b.onnx", Form())
    ensemble = Ensemble.open(tmp_path, scale=1 / 255, sample=drawn(8, 8, 1))
    (a, b) = (member["files"][0] for member in run_record(ensemble)["members"])
    assert a["adapted"] == ["images run in groups of 2, the last one filled up"]
    assert "adapted" not in b


def test_nothing_is_copied_where_nothing_is_adapted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session itself writes into the fusion's array; one that is adapted writes elsewhere."""
    from engine.models import net as module

    def none(*given: object) -> None:
        raise AssertionError("resized")

    monkeypatch.setattr(module, "resize_into", none)
    monkeypatch.setattr(module, "nearest_into", none)
    pixels = drawn(4, 16, 24)[..., None]
    for form, bound in (
        (Form(size=(16, 24)), True),
        (Form(size=(16, 24), batch=2), True),
        (Form(size=(16, 24), batch=3), False),
        (Form(size=(16, 24), gives="float16"), False),
    ):
        opened = inspect_net(save_foreign(tmp_path / "net.onnx", form), SCALE, pixels[0])
        member, out = opened.net("net"), np.full((4, 3, 16 * 24), np.nan, np.float32)
        seen = []
        whole = member.session.run

        def run(name: str, batch: np.ndarray, goal: np.ndarray | None = None) -> np.ndarray:
            seen.append(whole(name, batch, goal) is goal)  # noqa: B023
            return whole(name, batch, goal)  # noqa: B023

        monkeypatch.setattr(member.session, "run", run)
        member.run(member.prepare(pixels), out, (16, 24))
        assert seen == [bound]
        assert np.isfinite(out).all()
