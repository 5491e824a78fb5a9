"""What views and clean-up of classes bring on labelled tiles: fixed views against none, and what `engine select` keeps.

    python -m benchmarks.bench_views zoo/pan-zoo-fold0.onnx \
        zoo/residual-zoo-fold0.onnx --validation val.npz

The nets must not have seen the tiles: of the zoo, those whose names end on ``fold0`` did not see fold 0. The file
holds ``images``, ``labels`` and ``groups``. Without nets, MASKFUSE_POOL and MASKFUSE_VALIDATION name a folder of nets
and the tiles; without those the sample nets run on generated scenes. Nets of one size are opened first: a copy whose
graph declares free sides computes the same at any size, since convolutions, pooling and resizing by a factor hold none.

Writes benchmarks/results/views.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from benchmarks.table import rows, write
from engine import Ensemble
from engine.bootstrap import GroupedCounts, Interval, interval, paired_difference
from engine.fusion.decoding import Decoding
from engine.inference.prediction import Variant
from engine.models.contract import METADATA_KEY, ModelContract
from engine.samples import SAMPLES
from engine.samples.scenes import generate
from engine.sources.base import from_array

METRIC = "keras-ignore"
# What the sides of an input must be multiples of for all of the zoo's nets; images are mirrored up to that.
STRIDE = 64
SHIFTS = ("shift:4:0", "shift:-4:0", "shift:0:4", "shift:0:-4")
VIEWS: dict[str, tuple[str, ...]] = {
    "horizontal": ("horizontal",),
    "both": ("both",),
    "d4": ("d4",),
    "four shifts by 4 pixels": SHIFTS,
    "scales 0.75 and 1.25": ("scale:0.75", "scale:1.25"),
    "horizontal, scales 0.75 and 1.25": ("horizontal", "scale:0.75", "scale:1.25"),
}
# Of these the mean of probabilities is measured too.
BOTH_MEANS = ("horizontal", "scales 0.75 and 1.25")
# What `engine select` is given to choose from.
TRIED = (
    "auto:horizontal",
    "auto:horizontal/both/scale:0.75,scale:1.25/horizontal,scale:0.75,scale:1.25",
)


def opened(path: Path, folder: Path) -> Path:
    """Write a copy of a net whose graph declares free sides; return its path."""
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        for axis, side in enumerate(value.type.tensor_type.shape.dim):
            if axis > 1:
                side.Clear()
                side.dim_param = f"side{axis}"
    del model.graph.value_info[:]
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            held = ModelContract.from_json(entry.value)
            entry.value = replace(held, size=None, stride=STRIDE).to_json()
    onnx.save(model, folder / path.name)
    return folder / path.name


def confusions(
    nets: Sequence[Path], tiles: dict[str, npt.NDArray[np.int64]], views: Sequence[str], mean: str
) -> dict[str, npt.NDArray[np.int64]]:
    """Return int64 (tiles, classes, classes) of the ensemble (``""``) and of each net, by name."""
    ensemble = Ensemble.open([str(net) for net in nets], strategy="mean-prob", views=views, view_mean=mean)
    decoding = Decoding(ensemble.variant.decoding.suppress)
    alone = {member.name: Variant("mean-logit", decoding, at) for at, member in enumerate(ensemble.members)}
    images = from_array(tiles["images"].astype(np.uint8), "images")
    found: dict[str, list[npt.NDArray[np.int64]]] = {name: [] for name in ("", *alone)}
    for part in ensemble.stream(images, from_array(tiles["labels"].astype(np.uint8), "labels"), list(alone.values())):
        for name, variant in {"": ensemble.variant, **alone}.items():
            found[name].append(part.confusion[variant])
    return {name: np.concatenate(parts) for name, parts in found.items()}


def told(found: Interval, sign: str = "") -> str:
    """Return a score or difference with its interval."""
    return f"{found.value:{sign}.4f} [{found.low:{sign}.4f}, {found.high:{sign}.4f}]"


def fixed_views(nets: Sequence[Path], tiles: dict[str, npt.NDArray[np.int64]], ignored: int) -> str:
    """Return the table of fixed views: nothing is chosen with these tiles, so nothing is cross-fitted."""
    groups = np.unique(tiles["groups"], return_inverse=True)[1]

    def counted(found: dict[str, npt.NDArray[np.int64]]) -> dict[str, GroupedCounts]:
        return {name: GroupedCounts.of(matrices, groups, ignored) for name, matrices in found.items()}

    plain = counted(confusions(nets, tiles, (), "logits"))
    single = [name for name in plain if name]
    lines = [["none", "", told(interval(plain[""], METRIC)), "", *(f"{score_of(plain[n]):.4f}" for n in single)]]
    for name, views in VIEWS.items():
        for mean in ("logits", "probabilities") if name in BOTH_MEANS else ("logits",):
            seen = counted(confusions(nets, tiles, views, mean))
            gained = told(paired_difference(seen[""], plain[""], METRIC), "+")
            changes = (f"{score_of(seen[n]) - score_of(plain[n]):+.4f}" for n in single)
            lines.append([name, mean, f"{score_of(seen['']):.4f}", gained, *changes])
            print(*lines[-1], sep=" | ", flush=True)
    return rows(["views", "mean of", "mean-prob of all", "against none, paired", *single], lines)


def score_of(counts: GroupedCounts) -> float:
    """Return the score of all groups."""
    return interval(counts, METRIC).value


def selected(nets: Sequence[Path], validation: Path, *more: str) -> str:
    """Return what `engine select` tried last and kept: each step decided without the fold that it is scored on."""
    with tempfile.TemporaryDirectory() as folder:
        given = ["select", *(part for net in nets for part in ("-m", str(net))), "-i", f"{validation}:images"]
        given += ["--labels", f"{validation}:labels", "--groups", f"{validation}:groups", "--json", *more]
        call = [sys.executable, "-m", "engine.cli", *given, "-o", str(Path(folder) / "plan.toml")]
        done = subprocess.run(call, capture_output=True, text=True, env={**os.environ})
    if done.returncode:
        raise SystemExit(done.stderr)
    found = json.loads(done.stdout)
    lines = []
    for level in found["levels"]:
        score = level["cross_fitted"]
        mark = "chosen" if level["chosen"] else ""
        lines.append([level["name"], f"{score['score']:.4f} [{score['low']:.4f}, {score['high']:.4f}]", mark, ""])
    for step in found["steps"]:
        change = f"{step['after'] - step['before']:+.4f}"
        lines.append(
            [f"tried last: {step['name']}", f"{step['after']:.4f}", "kept" if step["kept"] else "left out", change]
        )
    last = found["levels"][-1]["choice"]
    kept = f"Clean-up of the last level: {json.dumps(last['cleanup'])}; views: {last['views']}.\n"
    return rows(["level", "cross-fitted", "", "change"], lines) + "\n" + kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", type=Path)
    parser.add_argument("--validation", type=Path, default=None, help="npz: images, labels, groups")
    parser.add_argument("--quick", action="store_true", help="few scenes")
    options = parser.parse_args()
    pool, named = os.environ.get("MASKFUSE_POOL"), os.environ.get("MASKFUSE_VALIDATION")
    nets, validation = options.nets, options.validation
    if not nets and pool and named:
        nets, validation = sorted(Path(pool).glob("*.onnx")), Path(named)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        where = "labelled tiles"
        if not nets:
            nets, where = sorted(Path(SAMPLES).glob("unet*.onnx")), "generated scenes"
            made = generate(48 if options.quick else 192)
            validation = folder / "scenes.npz"
            np.savez(validation, images=made.images, labels=made.labels, groups=np.arange(len(made.images)) // 8)
        with np.load(validation) as held:
            tiles = {key: np.asarray(held[key]) for key in ("images", "labels", "groups")}
        free = [opened(Path(net), folder) for net in nets]
        ignored = Ensemble.open([str(net) for net in free]).ignored_class or 0
        first = fixed_views(free, tiles, ignored)
        kept = [
            f"## What `engine select --views {tried}` keeps\n\n{selected(free, validation.resolve(), '--views', tried)}"
            for tried in TRIED
        ]
        count = len(np.unique(tiles["groups"]))
        names = ", ".join(net.stem for net in map(Path, nets))
        about = (
            f"{len(tiles['images'])} {where} of {count} groups; {names}; {METRIC}, the ignored class suppressed; "
            "intervals of 95 % over groups.\n"
        )
        path = write(
            "views",
            "Views and clean-up per class",
            "python -m benchmarks.bench_views",
            ("numpy", "connected-components-3d"),
            about,
            "## Fixed views\n\nNothing is chosen with these tiles. The last columns: each net alone, and its change.\n",
            first,
            "Below, every score is of folds that nothing was chosen with.\n",
            *kept,
        )
    print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
