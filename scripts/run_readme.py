"""Runs README's commands from top to bottom as one script, in an empty folder.

    python -m scripts.run_readme [--list] [--keep FOLDER]

Lines that install or test are left out: the environment that runs this has the packages. What a reader brings (a
training file, nets of other tools, pictures) are small stand-ins of the same form; `zoo/` is the repository's. The
exit code is 1 if a command fails, or if it does not leave the file that it names.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ("engine", "trainers", "exporters")
# Options that name what a command writes.
WRITTEN = ("--out", "--output", "-o", "--sheet")
TILES = 40


def main(arguments: Sequence[str] | None = None) -> int:
    """Run or list the commands; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print the script and run nothing")
    parser.add_argument("--keep", type=Path, help="an empty or new folder to run in, which stays")
    options = parser.parse_args(arguments)
    script = commands((ROOT / "README.md").read_text("utf-8"))
    if options.list:
        print("\n".join(script))
        return 0
    with tempfile.TemporaryDirectory(prefix="readme-") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            parser.error(f"{folder} is not empty: the commands would meet files of an earlier run")
        bring(folder)
        return run(script, folder)


def commands(readme: str) -> list[str]:
    """Return the commands of the shell and Python blocks, in order; a Python block is one command."""
    found = []
    for kind, block in re.findall(r"```(bash|python)\n(.*?)```", readme, flags=re.DOTALL):
        if kind == "python":
            found.append(f"python - <<'END'\n{block}END")
            continue
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.split(" #")[0].split("&&"):
                words = shlex.split(part)
                if words and Path(words[0]).name in PROGRAMS:
                    found.append(shlex.join([Path(words[0]).name, *words[1:]]))
    return found


def bring(folder: Path) -> None:
    """Write what a reader has before the first command."""
    from PIL import Image

    from engine.samples.scenes import generate
    from tests.helpers.nets import save_net

    scenes = generate(TILES + 8)
    images, pairs = scenes.images, np.stack([scenes.images, scenes.labels], axis=1)
    np.savez(folder / "mars_for_students.npz", training_set=pairs[:TILES], test_set=images[TILES:])
    np.save(folder / "tiles.npy", images[TILES:])
    (folder / "tiles").mkdir()
    for index, image in enumerate(images[TILES:]):
        Image.fromarray(np.repeat(image[..., None], 3, axis=2)).save(folder / "tiles" / f"{index}.png")
    (folder / "more").mkdir()
    for seed, name in enumerate(("a.onnx", "more/b.onnx", "more/c.onnx")):
        save_net(folder / name, seed=seed, channels=3)
    (folder / "zoo").symlink_to(ROOT / "zoo")


def run(script: Sequence[str], folder: Path) -> int:
    """Run the commands in one shell; return 0, or 1 with what went wrong."""
    lines = ["set -euo pipefail"]
    for command in script:
        lines += [f"printf '\\n$ %s\\n' {shlex.quote(command.splitlines()[0])}", command]
    place = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{place}{os.pathsep}{os.environ['PATH']}"}
    # With it, trainers leave TensorFlow's messages to the user, who asked for them.
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    done = subprocess.run(["bash", "-c", "\n".join(lines)], cwd=folder, env=environment)
    if done.returncode:
        print(f"README's script ends with exit code {done.returncode} at the last command shown", file=sys.stderr)
        return 1
    missing = [name for name in named(script) if not (folder / name).exists()]
    if missing:
        print(f"README's script did not write {', '.join(missing)}", file=sys.stderr)
    return int(bool(missing))


def named(script: Sequence[str]) -> list[str]:
    """Return the files and folders that the commands say they write."""
    words = [shlex.split(command) for command in script if not command.startswith("python")]
    return [after for line in words for word, after in pairwise(line) if word in WRITTEN]


if __name__ == "__main__":
    sys.exit(main())
