"""PyTorch nets as people bring them (ImageNet scaling, 3 channels, 21 classes, NCHW), through every command."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.compare.runfile import read_run
from tests.conftest import Result

torch = pytest.importorskip("torch", reason="the nets are made by PyTorch: pip install 'maskfuse[bench]'")
CLASSES, SIZE = 21, (16, 24)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FOREIGN = ["--scale", "0.00392156862745098", "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]
FOREIGN += ["--ignored-class", "0"]


def net(seed: int):  # type: ignore[no-untyped-def]
    torch.manual_seed(seed)
    first, last = torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.Conv2d(16, CLASSES, 1)
    return torch.nn.Sequential(first, torch.nn.ReLU(), last).eval()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two nets exported by torch.onnx, images, and labels that the first net half knows."""
    folder = tmp_path_factory.mktemp("foreign")
    images = np.random.default_rng(0).integers(0, 256, (8, *SIZE, 3)).astype(np.uint8)
    for seed in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                net(seed),
                (torch.zeros(1, 3, *SIZE),),
                str(folder / f"net{seed}.onnx"),
                input_names=["pixels"],
                output_names=["scores"],
                dynamic_axes={name: {0: "n", 2: "h", 3: "w"} for name in ("pixels", "scores")},
                dynamo=False,
            )
    guess = expected(images, [0])
    noise = np.random.default_rng(1)
    labels = np.where(noise.random(guess.shape) < 0.7, guess, noise.integers(0, CLASSES, guess.shape)).astype(np.uint8)
    np.savez(folder / "val.npz", images=images, labels=labels)
    return folder


def expected(images: np.ndarray, seeds: list[int]) -> np.ndarray:
    """Labels as PyTorch itself gives them: mean of the logits, class 0 left out."""
    scaled = (images / 255 - np.array(MEAN)) / np.array(STD)
    pixels = torch.tensor(scaled.transpose(0, 3, 1, 2), dtype=torch.float32)
    with torch.no_grad():
        logits = sum(net(seed)(pixels) for seed in seeds)
    return (1 + logits[:, 1:].argmax(dim=1)).numpy().astype(np.uint8)


def test_foreign_nets_go_through_every_command(
    place: Path, engine: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiles = ["-m", place / "net0.onnx", "-m", place / "net1.onnx", "-i", place / "val.npz", *FOREIGN]
    labelled = [*tiles, "--labels", place / "val.npz"]
    assert engine("ensemble", *tiles, "-o", "masks.npz").code == 0
    with np.load("masks.npz") as held, np.load(place / "val.npz") as given:
        masks, images = held["masks"], given["images"]
    # Where two classes are equal but for rounding, the two may differ.
    assert (masks == expected(images, [0, 1])).mean() > 0.999

    few = ["--folds", 2, "--pixels", 500, "--json"]
    told = engine("compare", *labelled, *few, "--gallery", 1, "--no-ablation", "-o", "run.npz")
    assert told.code == 0, told.err
    facts = json.loads(told.out)
    single = facts["rows"][facts["baseline"]["keras-ignore"]]
    assert single["name"] == "net0"
    assert single["scores"]["keras-ignore"]["value"] > 0.4
    assert len(facts["classes"]) == CLASSES
    assert facts["members"][0]["input"].startswith("NCHW")
    assert facts["members"][0]["scaling"].startswith("x 0.00392157, mean 0.485 0.456 0.406")

    selected = engine("select", *labelled, *few, "-o", "plan.toml", "--no-threshold", "--no-clean-up", "--rounds", 2)
    assert selected.code == 0, selected.err
    assert engine("ensemble", "--plan", "plan.toml", "-i", place / "val.npz", "-o", "planned.npz").code == 0

    pytest.importorskip("jinja2", reason="the page needs maskfuse[report]")
    assert engine("report", "run.npz", "-o", "page.html").code == 0
    assert "class 20" in Path("page.html").read_text("utf-8")
    assert read_run(Path("run.npz")).pictures.images.shape[1:] == (*SIZE, 3)
    assert sorted(path.name for path in Path().iterdir()) == [
        "masks.npz",
        "page.html",
        "plan.toml",
        "planned.npz",
        "run.npz",
    ]
