"""Train and export the nets in engine/samples/: ``python -m scripts.make_samples [--work FOLDER]``.

They are trained on generated scenes with another seed than the default job's, with the background in the loss like the
report's nets, so that the default job shows the effect of suppression. About 45 minutes on two cores;
a second start continues where the first stopped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

from engine.samples.scenes import CLASSES, generate

SAMPLES = Path(__file__).parents[1] / "engine" / "samples"
TRAINING_SEED = 1000
SCENES = 3000
# Preset and epochs of each.
NETS = {"unet": ("tiny", 16), "unet_plus_plus": ("small", 14)}
SPECIALISTS = ("tiny", 16)


def run(*command: str) -> None:
    """Run one of the project's command lines; stop if it fails."""
    print("$", " ".join(command), flush=True)
    subprocess.run([sys.executable, "-m", *command], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/samples"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    data = options.work / "scenes.npz"
    if not data.exists():
        scenes = generate(SCENES, seed=TRAINING_SEED)
        np.savez_compressed(data, images=scenes.images, labels=scenes.labels)
    names = ",".join(CLASSES)
    shared = ["--data", str(data), "--class-names", names, "--ignored-class", "0", "--keep-background"]
    shared += ["--learning-rate", "0.003"]
    for net, (preset, epochs) in NETS.items():
        out = options.work / f"{net}.keras"
        if not out.exists():
            run("trainers.cli", "fit", net, "--out", str(out), "--preset", preset, "--epochs", str(epochs), *shared)
        run("exporters.cli", "onnx", str(out), "--out", str(SAMPLES / f"{net}.onnx"), "--overwrite")
    specialists = options.work / "specialists"
    preset, epochs = SPECIALISTS
    sized = ["--preset", preset, "--epochs", str(epochs)]
    run("trainers.cli", "fit-specialists", "--out", str(specialists), *sized, *shared)
    for class_id in range(len(CLASSES)):
        source, goal = specialists / f"k{class_id}.keras", SAMPLES / f"one_class_{class_id}.onnx"
        run("exporters.cli", "onnx", str(source), "--out", str(goal), "--overwrite")


if __name__ == "__main__":
    main()
