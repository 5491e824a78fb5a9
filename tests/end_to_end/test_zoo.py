"""The trained ensemble in the repository is whole, small enough, and predicts."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from engine.samples.scenes import generate

ZOO = Path(__file__).parents[2] / "zoo"


def test_every_member_has_its_file_and_its_run() -> None:
    plan = tomllib.loads((ZOO / "ensemble.toml").read_text("utf-8"))
    models = {name for member in plan["members"] for name in member.get("folds", [member.get("model")])}
    assert "cleanup" not in plan, "the plan must predict without extras"
    # Beside the plan's nets lies the one that learned from them.
    models.add("student.onnx")
    assert models == {path.name for path in ZOO.glob("*.onnx")}
    for model in models:
        assert list(ZOO.glob(f"{Path(model).stem}.*run.toml")), f"{model} has no run.toml"
    assert sum(path.stat().st_size for path in ZOO.iterdir()) <= 24_000_000


@pytest.mark.parametrize("name", ["ensemble", "student"])
def test_the_plan_predicts_and_never_the_background(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from engine.cli import app

    monkeypatch.chdir(tmp_path)
    np.savez("tiles.npz", test_set=generate(3, seed=5).images)
    plan = str(ZOO / f"{name}.toml")
    done = CliRunner().invoke(app, ["ensemble", "--plan", plan, "--input", "tiles.npz", "--output", "masks.npz"])
    assert done.exit_code == 0, done.output
    with np.load("masks.npz") as masks:
        assert masks["masks"].shape == (3, 64, 128)
        assert masks["masks"].min() >= 1
        members = json.loads(str(masks["metadata"]))["members"]
        assert len(members) >= 2 if name == "ensemble" else len(members) == 1
