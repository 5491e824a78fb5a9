"""ensemble.toml: everything a run needs in one declarative file, checked field by field before anything is opened.

strategy = "mean-prob"        # a name from engine.fusion.strategies
suppress = [0]                # omit for the ignored class that the contracts declare, [] for none
threshold = 0.9               # a suppressed class is kept where its probability reaches this; omit for never
bias = [0, 0, 0.1, 0, 0.3]    # one per class, added to the fused score; omit for none
prior = [1, 1, 1, 0.5, 2]     # one per class: target frequency / frequency in training; omit for none
vote_stage = "members"        # members or fused
min_region = 16               # regions of fewer pixels go to the surrounding class; omit for no clean-up
decode = "rankseg"            # labels for the IoU of whole images, or rankseg-dice; omit for the argmax of each pixel
temperature = 1.2             # divides the logarithms of written probabilities; no label depends on it
views = ["d4", "scale:1.25"]  # what members also run on, see engine.models.views; flips = "horizontal" is one of them
view_mean = "probabilities"   # what of the views, and of the folds of a member, is averaged; omit for logits

[cleanup."big rock"]          # what a class, by name or id, must fulfil; omit for nothing
threshold = 0.6               # predicted only where its probability reaches this, else the next best class
min_region = 25               # in place of the number for all classes
largest = true                # only its largest region of an image stays; the others go to the surrounding class
fill_holes = true             # what it encloses becomes this class

[input]                       # how images are read; omit for what their files say
layout = "NCHW"               # axes of an array: NHWC, NCHW, NHW, HWC, CHW or HW
exif = "ignore"               # leave pictures as stored; omit to turn them as their EXIF orientation says
rgb_as_grey = true            # RGB images for nets of one channel (ITU-R BT.601)
alpha = true                  # with --tile, the last band of a raster is alpha: no data where it is 0, no band for nets
resolution = "ignore"         # read maps as stored; omit to read them at the ground resolution that members state
tile = "128x256"              # cut images of any size into such tiles, as --tile; omit for whole images
stitch = true                 # before that, put overlapping images back together, as --stitch

[output]                      # how masks are written
min_area = 25                 # leave out smaller polygons, in squared units of the coordinate reference system

[unknown]                     # pixels that get no class; omit for none
threshold = 0.63              # those with more doubt than this
doubt = "entropy"             # the map of doubt; omit for entropy
risk = 0.1                    # what engine select --unknown-risk calibrated the threshold to; omit where it is stated
groups = 42                   # on so many groups

[labels]                      # what true masks hold; omit for class numbers, with 255 for void
ids = [0, 7, 11, 12, 13]      # the value of each class
void = 254                    # the value of pixels without a class; omit for 255
output_ids = true             # write these ids into masks too; omit for class numbers
# palette = "colours.csv"     # in place of ids, the colour of each class; see engine.sources.palettes

[[members]]
model = "unet.onnx"           # relative to this file; a folder or glob: one member per file
weight = 2                    # omit for 1; a list has one per class
temperature = 1.4             # its logits are (logits + bias) / temperature; omit both to take them as they are
bias = [0, 0.1, 0, -0.2, 0]
# The checksum of the file; omit to accept any file.
sha256 = "9f2c0d6b5e7a4f1380c4d2a1b6e8f7035a9d1c2e4b6f8a0d3c5e7f9b1a2d4c6e"

[[members]]
model = "foreign.onnx"
[members.contract]            # for a file without a contract
classes = ["background", "soil", "bedrock", "sand", "big rock"]
scale = 0.00392156862745098
activation = "logits"

[[members]]
# The nets of a cross-validation count as one member, their mean, see engine.models.folds.
folds = ["pan-fold0.onnx", "pan-fold1.onnx", "pan-fold2.onnx"]
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import ContractError, OutputError, PlanError
from engine.fusion.cleanup import read_cleanup
from engine.fusion.doubt import Unknown
from engine.runs.plan_input import InputTable
from engine.runs.plan_labels import labels_table, read_labels
from engine.runs.plan_member import PlannedMember, member_table, read_member, relative_to
from engine.runs.plan_output import OutputTable
from engine.runs.plan_unknown import read_unknown, unknown_table
from engine.runs.plan_values import check_known, number, numbers, text, texts
from engine.sources.coding import PLAIN, LabelCoding
from engine.utils.console import one_line
from engine.utils.files import write_text

MOST_BYTES = 1_000_000
KEYS = (
    "classes",
    "strategy",
    "suppress",
    "threshold",
    "bias",
    "prior",
    "vote_stage",
    "min_region",
    "decode",
    "temperature",
    "flips",
    "views",
    "view_mean",
)


@dataclass(frozen=True)
class Plan:
    """A checked plan; None (for ``bias`` and ``prior``: empty) means: not given, the default applies.

    Attributes:
        members: at least one.
        classes: names of the ensemble's classes; empty for those of the first member.
        strategy: name of the fusion strategy.
        suppress: ids of the classes never predicted.
        threshold: see :class:`engine.fusion.decoding.Decoding`, as the next four.
        bias: one per class.
        prior: one per class.
        vote_stage: ``members`` or ``fused``.
        min_region: minimum size in pixels of a region that is kept.
        decode: how probabilities become labels.
        temperature: of the fused probabilities as they are written.
        flips: name of the mirror images that members also run on; another way to say ``views``.
        views: names of what members also run on, see :mod:`engine.models.views`.
        view_mean: what of the views is averaged.
        cleanup: what classes must fulfil (:mod:`engine.fusion.cleanup`), by their names or ids.
        input: how images are read.
        output: how masks are written.
        labels: what true masks hold, and whether masks are written with the same ids.
        unknown: which pixels are too doubtful for a label; None for none.
    """

    members: tuple[PlannedMember, ...]
    classes: tuple[str, ...] = ()
    strategy: str | None = None
    suppress: tuple[int, ...] | None = None
    threshold: float | None = None
    bias: tuple[float, ...] = ()
    prior: tuple[float, ...] = ()
    vote_stage: str | None = None
    min_region: int | None = None
    decode: str | None = None
    temperature: float | None = None
    flips: str | None = None
    views: tuple[str, ...] | None = None
    view_mean: str | None = None
    cleanup: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    input: InputTable = field(default_factory=InputTable)
    output: OutputTable = field(default_factory=OutputTable)
    labels: LabelCoding = PLAIN
    unknown: Unknown | None = None


def read_plan(path: Path) -> Plan:
    """Read and check a plan file.

    Raises:
        PlanError: no such file, not TOML, unknown keys, wrong types.
    """
    if not path.is_file():
        raise PlanError(f"no such plan: {path}")
    if path.stat().st_size > MOST_BYTES:
        raise PlanError(f"{path} is larger than {MOST_BYTES} bytes: not a plan")
    try:
        raw = tomllib.loads(path.read_text("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PlanError(f"{path} is not TOML ({error}): correct that line") from None
    try:
        return _plan(raw, path.parent)
    except (PlanError, ContractError) as error:
        raise PlanError(f"{path}: {error}") from None


def write_plan(path: Path, plan: Plan, comment: str = "") -> None:
    """Write a plan that :func:`read_plan` reads back unchanged; values not given are not written.

    Args:
        path: the file to write; replaced if it exists. It appears complete or not at all.
        plan: the plan to write; models inside the plan's folder (or near it) are named relative to it.
        comment: comment lines above it.

    Raises:
        OutputError: it cannot be written there.
    """
    import tomli_w

    lines = [one_line(line) for line in comment.splitlines()]
    header = "".join(f"# {line}".rstrip() + "\n" for line in lines)
    whole = header + ("\n" if header else "") + tomli_w.dumps(_tables(plan, path.parent))
    try:
        write_text(path, whole)
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error.strerror or error}): choose another place") from None
    except UnicodeEncodeError:
        raise OutputError(f"cannot write {path}: a model's name is not UTF-8, which TOML needs: rename it") from None


def _tables(plan: Plan, folder: Path) -> dict[str, Any]:
    stated = {key: getattr(plan, key) for key in KEYS}
    kept = {key: value for key, value in stated.items() if value is not None and (value != () or key == "suppress")}
    coding = labels_table(plan.labels, lambda path: relative_to(path, folder))
    stated_tables = {
        "cleanup": plan.cleanup,
        "input": plan.input.stated,
        "output": plan.output.stated,
        "unknown": unknown_table(plan.unknown),
        "labels": coding,
    }
    for name, table in stated_tables.items():
        if table:
            kept[name] = table
    return {**kept, "members": [member_table(member, folder) for member in plan.members]}


def _plan(raw: dict[str, Any], folder: Path) -> Plan:
    check_known(raw, {*KEYS, "members", "cleanup", "input", "output", "unknown", "labels"}, "plan")
    tables = raw.get("members")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise PlanError("members: at least one [[members]] table is needed")
    if "flips" in raw and "views" in raw:
        raise PlanError("flips and views: flips are views too; keep views alone")
    suppress = raw.get("suppress")
    return Plan(
        members=tuple(read_member(table, folder) for table in tables),
        classes=texts(raw.get("classes", []), "classes"),
        strategy=text(raw, "strategy"),
        suppress=None if suppress is None else numbers(suppress, "suppress", int),
        threshold=number(raw["threshold"], "threshold", (int, float)) if "threshold" in raw else None,
        bias=tuple(float(value) for value in numbers(raw.get("bias", []), "bias", (int, float))),
        prior=tuple(float(value) for value in numbers(raw.get("prior", []), "prior", (int, float))),
        vote_stage=text(raw, "vote_stage"),
        min_region=number(raw["min_region"], "min_region", int) if "min_region" in raw else None,
        decode=text(raw, "decode"),
        temperature=number(raw["temperature"], "temperature", (int, float)) if "temperature" in raw else None,
        flips=text(raw, "flips"),
        views=texts(raw["views"], "views") if "views" in raw else None,
        view_mean=text(raw, "view_mean"),
        cleanup=_cleanup(raw.get("cleanup", {})),
        input=InputTable.of(raw.get("input", {})),
        output=OutputTable.of(raw.get("output", {})),
        labels=read_labels(raw.get("labels", {}), folder),
        unknown=read_unknown(raw.get("unknown")),
    )


def _cleanup(raw: object) -> dict[str, dict[str, Any]]:
    if not isinstance(raw, dict):
        raise PlanError('cleanup: it is a table by class, as in [cleanup."big rock"]')
    return {name: read_cleanup(name[:40], table).stated for name, table in raw.items()}
