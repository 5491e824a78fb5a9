"""A set of one-class nets as one file: the same maps, calibrated, and the singles beside it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from engine import Ensemble
from engine.errors import ContractError, EngineError, InputError, ModelError, OutputError, PlanError
from engine.models.contract import ModelContract
from engine.models.opening import open_net
from exporters import specialists as exporting
from exporters.calibration import _loss, fit_calibration
from exporters.measures import logits_of
from exporters.specialists import Specialists, export_specialists
from exporters.tiles import LabelledTiles

SIZE = (16, 32)


@pytest.fixture(scope="session")
def trained(tmp_path_factory, build, save, contract) -> list[Path]:
    """Three archives of one-class nets with weights of their own."""
    folder = tmp_path_factory.mktemp("one class")
    found = []
    for class_id in range(3):
        net = build("specialist")
        net.set_weights([weight * (1 + 0.1 * class_id) for weight in net.get_weights()])
        promised = replace(contract, kind="specialist", class_id=class_id)
        found.append(save(folder / f"net{class_id}.keras", net, promised))
    return found


@pytest.fixture(scope="session")
def tiles() -> LabelledTiles:
    draw = np.random.default_rng(4)
    images = draw.integers(0, 256, (6, *SIZE, 1)).astype(np.uint8)
    return LabelledTiles(images, draw.integers(0, 3, (6, *SIZE)).astype(np.uint8))


@pytest.fixture(scope="session")
def done(tmp_path_factory, trained, tiles) -> Specialists:
    out = tmp_path_factory.mktemp("exported") / "new" / "five.onnx"
    return export_specialists([trained[2], trained[0], trained[1]], out, tiles=lambda contract: tiles)


def test_one_file_holds_the_maps_of_the_singles(done, tiles):
    session = onnxruntime.InferenceSession(done.path, providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.shape) == ("images", ["batch", 1, *SIZE])
    assert (given.name, given.shape) == ("logits", ["batch", 3, *SIZE])
    images = (tiles.images.astype(np.float32) / 255).transpose(0, 3, 1, 2)
    (maps,) = session.run(None, {"images": images})
    assert [path.name for path in done.singles] == ["k0.onnx", "k1.onnx", "k2.onnx"]
    for class_id, path in enumerate(done.singles):
        single = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        np.testing.assert_allclose(maps[:, [class_id]], single.run(None, {"images": images})[0], atol=1e-5)
    assert len({maps[:, class_id].tobytes() for class_id in range(3)}) == 3


def test_contracts_carry_the_same_calibration(done, read_stamp):
    held = read_stamp(done.path)
    assert held == done.contract
    assert (held.kind, held.class_id, held.ignored_class, held.size) == ("specialists", None, 0, SIZE)
    assert held.calibration == (done.calibration.bias, done.calibration.temperature)
    assert held.notes["calibration_loss_after"] < held.notes["calibration_loss_before"]
    assert held.notes["parity_max_difference"] < 1e-4
    for class_id, path in enumerate(done.singles):
        single = read_stamp(path)
        assert (single.kind, single.class_id, single.group) == ("specialist", class_id, "five")
        assert (single.bias, single.temperature) == (held.bias[class_id], held.temperature[class_id])


@pytest.mark.parametrize("suppress", [(), (0,)])
def test_the_engine_takes_either(suppress, done, tiles):
    whole, apart = (Ensemble.open(path, suppress=suppress) for path in (done.path, done.path.with_suffix("")))
    assert len(whole.members) == len(apart.members) == 1
    assert (whole.predict(tiles.images) == apart.predict(tiles.images)).mean() > 0.999


def test_without_tiles_nothing_is_calibrated(trained, tmp_path, read_stamp):
    done = export_specialists(trained, tmp_path / "five.onnx")
    assert (done.calibration, done.miou) == (None, None)
    assert read_stamp(done.path).calibration is None


def true_odds(count: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels drawn from their softmax."""
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 2, (count, 4))
    terms = np.exp(logits)
    edges = np.cumsum(terms / terms.sum(axis=1, keepdims=True), axis=1)
    return logits, (draw.random((count, 1)) > edges).sum(axis=1).clip(max=3).astype(np.uint8)


def as_maps(flat: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(flat.reshape(100, 20, 20, -1).transpose(0, 3, 1, 2)).astype(np.float32)


def test_the_fit_finds_what_was_done_to_the_odds():
    logits, labels = true_odds()
    temperature, bias = np.array([0.5, 1.0, 2.0, 4.0]), np.array([1.0, -2.0, 0.0, 3.0])
    found = fit_calibration(as_maps(logits * temperature - bias), labels.reshape(100, 20, 20), None)
    np.testing.assert_allclose(found.temperature, temperature, rtol=0.1)
    # A shift common to all classes changes no probability.
    shifts = np.array(found.bias) / found.temperature - bias / temperature
    np.testing.assert_allclose(shifts - shifts.mean(), 0, atol=0.1)
    assert found.after < found.before
    assert found.pixels == 40_000


def test_the_ignored_class_is_fitted_last_and_changes_no_other():
    logits, labels = true_odds()
    bent = logits * [3.0, 1.0, 1.0, 1.0] + [2.0, 0.0, 0.0, 0.0]
    found = fit_calibration(as_maps(bent), labels.reshape(100, 20, 20), 0)
    assert found.pixels == (labels != 0).sum()
    np.testing.assert_allclose(found.temperature, [3, 1, 1, 1], rtol=0.1)
    masked = np.where(labels == 0, 0, labels).astype(np.uint8)
    bent[:, 0] = 17.0
    other = fit_calibration(as_maps(bent), masked.reshape(100, 20, 20), 0)
    assert other.temperature[1:] == found.temperature[1:]
    assert other.after == found.after


def test_the_derivatives_are_those_of_the_loss():
    draw = np.random.default_rng(1)
    odds, wanted = draw.normal(0, 2, (50, 3)), draw.integers(0, 3, 50)
    slopes, shifts = np.array([0.5, 1.0, 2.0]), np.array([0.1, -0.3, 0.0])
    _, by_slope, by_shift = _loss(odds, wanted, slopes, shifts)
    for index in range(3):
        step = np.eye(3)[index] * 1e-6
        up, down = (_loss(odds, wanted, slopes + s, shifts)[0] for s in (step, -step))
        assert (up - down) / 2e-6 == pytest.approx(by_slope[index], abs=1e-6)
        up, down = (_loss(odds, wanted, slopes, shifts + s)[0] for s in (step, -step))
        assert (up - down) / 2e-6 == pytest.approx(by_shift[index], abs=1e-6)


def test_a_class_without_pixels_cannot_be_calibrated():
    with pytest.raises(InputError, match="no pixel of class 2"):
        fit_calibration(np.zeros((1, 3, 4, 4), np.float32), np.ones((1, 4, 4), np.uint8), 0)


@pytest.fixture
def other(tmp_path, build, save, contract) -> Callable[..., Path]:
    """Write a further archive with a contract of its own."""

    def write(**fields: object) -> Path:
        promised = replace(contract, **{"kind": "specialist", "class_id": 2, **fields})
        return save(tmp_path / "other.keras", build("specialist"), promised)

    return write


def refused(error: type[EngineError], sources: list[Path], tmp_path: Path, *words: str, **options: object) -> None:
    out = tmp_path / "out"
    with pytest.raises(error) as caught:
        export_specialists(sources, out / "five.onnx", **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message
    assert not out.exists()


def test_sets_that_are_none(trained, archive, other, build, save, tmp_path):
    refused(ContractError, trained[:2], tmp_path, "no specialist of class 2 (rock)")
    refused(ContractError, [*trained, trained[1]], tmp_path, "know the same class 1")
    refused(ContractError, [*trained[:2], archive[0]], tmp_path, "multi-class net", "fit-specialists")
    refused(ContractError, [save(tmp_path / "bare.keras", build("specialist"))], tmp_path, "no contract in it")
    refused(ContractError, [], tmp_path, "no specialists")
    refused(ModelError, [tmp_path / "none.keras"], tmp_path, "no such file")
    for fields, word in (({"scale": 1.0}, "against 1.0)"), ({"classes": ("a", "b", "c")}, "classes")):
        refused(ContractError, [*trained[:2], other(**fields)], tmp_path, "disagree on", word)


def test_options_that_do_not_fit(trained, done, tiles, tmp_path, monkeypatch):
    with pytest.raises(PlanError, match=r"must end in \.onnx"):
        export_specialists(trained, tmp_path / "five")
    with pytest.raises(OutputError, match="--overwrite"):
        export_specialists(trained, done.path)
    refused(PlanError, trained, tmp_path, "opset 40", opset=40)
    lacking = replace(tiles, labels=np.ones_like(tiles.labels))
    refused(InputError, trained, tmp_path, "no pixel of class 2", tiles=lambda contract: lacking)
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    refused(PlanError, trained, tmp_path, "pip install 'maskfuse[export]'")


def test_a_joined_file_that_strays_is_not_written(trained, tmp_path, monkeypatch):
    joined = exporting._joined

    def swapped(drafts, contract: ModelContract, opset: int):
        return joined([drafts[1], drafts[0], drafts[2]], contract, opset)

    monkeypatch.setattr(exporting, "_joined", swapped)
    refused(ModelError, trained, tmp_path, "strays from the single ones")


def test_calibrated_odds_are_what_the_contract_says(done, tiles):
    member = open_net(done.path)
    plain = replace(member, contract=replace(member.contract, bias=0.0, temperature=1.0))
    bias, temperature = (np.array(values)[:, None, None] for values in member.contract.calibration)
    want = (logits_of(plain, tiles.images) + bias) / temperature
    np.testing.assert_allclose(logits_of(member, tiles.images), want, rtol=1e-4, atol=1e-4)
