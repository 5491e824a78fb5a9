"""What is known before Keras is imported is what the registries say, and is refused before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Result
from trainers import cli
from trainers.losses import MULTICLASS, SPECIALIST
from trainers.models import ARCHITECTURES
from trainers.names import ARCHITECTURES as NAMES
from trainers.names import LOSSES, PRESETS, SPECIALIST_LOSSES, SPECIALISTS


def test_the_names_are_those_of_the_registries() -> None:
    assert tuple(ARCHITECTURES) == NAMES
    assert tuple(name for name, item in ARCHITECTURES.items() if item.specialist) == SPECIALISTS
    assert {tuple(item.presets) for item in ARCHITECTURES.values()} == {PRESETS}
    assert (tuple(MULTICLASS), tuple(SPECIALIST)) == (LOSSES, SPECIALIST_LOSSES)


FIT = ("fit", "unet", "--data", "DATA", "--out", "n.keras")
REFUSED = {
    "an existing network": (FIT, "n.keras: already exists"),
    "no such data": (("fit", "unet", "--data", "none.npz", "--out", "m.keras"), "none.npz: no such file"),
    "architecture": (("fit", "resnet", "--data", "DATA", "--out", "m.keras"), "choose one of unet"),
    "preset": ((*FIT[:-1], "m.keras", "--preset", "huge"), "tiny, small, base, large"),
    "loss": ((*FIT[:-1], "m.keras", "--loss", "hinge"), "loss: 'hinge' is unknown"),
    "loss of a specialist": (
        ("fit-specialists", "--data", "DATA", "--out", "s", "--loss", "weighted-cross-entropy"),
        "loss: 'weighted-cross-entropy' is unknown",
    ),
    "search": (("cross-validate", "resnet", "--data", "DATA", "--out", "s"), "choose one of unet"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_arguments_are_refused_before_keras_is_imported(
    case: str, call: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "import_backend", lambda: pytest.fail("Keras is imported"))
    np.savez("data.npz", training_set=np.zeros((4, 2, 8, 8), np.uint8))
    Path("n.keras").write_bytes(b"mine")
    arguments, told = REFUSED[case]
    done = call(cli.app, *(word.replace("DATA", "data.npz") for word in arguments))
    assert done.code == 2
    assert told in done.err
    assert len(done.err.splitlines()) == 1
    assert Path("n.keras").read_bytes() == b"mine"
