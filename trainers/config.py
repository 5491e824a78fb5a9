"""The description of one training run: frozen, validated, hashed, written to TOML and read back."""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from engine.errors import InputError, PlanError

Monitor = Literal["suppressed", "raw"]
MONITORS = ("suppressed", "raw")
#: Keras' names; the weights stay float32 and the logits are computed in it.
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
STAGES = ("whole", "first", "second")
BALANCES = ("tiles", "groups")
#: Fields that only locate files and do not affect the weights; the data enter the hash by content.
PLACES = frozenset({"data", "groups", "out", "extra", "start_from", "soft"})
#: Fields that are younger than the first runs: they enter the hash where they say something.
LATER = frozenset({"soft_weight", "temperature", "teacher", "soft_sha256", "swa", "balance", "validate_every"})


@dataclass(frozen=True)
class FitConfig:
    """Everything that determines the weights of one network.

    Attributes:
        arch: name of the architecture, as in :mod:`trainers.models`.
        data: path of the training file (npz).
        out: path of the ``.keras`` file to write.
        preset: size of the architecture.
        groups: path of the npz with one group per tile, or empty.
        epochs: maximum number of epochs.
        batch_size: tiles per step.
        learning_rate: peak of the schedule.
        weight_decay: decoupled weight decay of AdamW.
        warmup_epochs: epochs of linear warm-up before the cosine; a fraction is allowed.
        patience: epochs without improvement before training stops; 0 means never.
        validate_every: epochs from one validation to the next; the last epoch is always validated.
        seed: seed of weights, order, folds and augmentation.
        loss: the loss, or a weighted sum of losses, as in :mod:`trainers.losses`.
        ignore_background: exclude pixels of the ignored class from the loss.
        augment: name of the augmentation policy, as in :mod:`trainers.augment`.
        repeat: how often an epoch shows each tile, augmented afresh each time; identical copies are dropped.
        oversample: share of tiles below which a class is rare and tiles with it are repeated; 0: never.
        paste: probability that pixels of a rare class are pasted into a tile.
        dropout: dropout rate inside each block.
        options: further options of the architecture, each ``name=value``.
        deep_supervision: train a head on the inner nodes too (unet_plus_plus).
        stage: part of a cascade to train: whole, first, or second on top of a frozen first (double_unet).
        start_from: path of a trained network to start from, or empty.
        precision: compute precision during training, out of :data:`PRECISIONS`.
        ema: decay per step of the moving average of the weights, which is then what is scored
            and saved; 0: no average.
        extra: path of more tiles for training only, never for validation, or empty.
        swa: how many of the last epochs have their weights averaged, which is then what is scored and saved; 0: none.
        balance: how an epoch draws tiles: ``tiles``, each once, or ``groups``, see
            :func:`trainers.sampling.balanced_order`.
        soft: path of the soft targets of the training file's tiles (npz), or empty.
        soft_weight: share of soft targets in the loss; hard labels have the rest.
        temperature: softens soft targets and the network's probabilities in that loss.
        teacher: hash of the ensemble that made the soft targets, or empty.
        class_names: names of the classes in label order; empty: the names of the data.
        ignored_class: class excluded from the score and suppressed by default; None if there is none.
        class_id: the class of a specialist; None for a multi-class network.
        group: name shared by the specialists of one set.
        folds: number of folds the data are split into.
        fold: the fold used for validation.
        train_all: train on every tile, without validation.
        max_tiles: use at most this many tiles; 0 means all.
        monitor: which validation score chooses the best epoch.
        data_sha256: hash of the training file.
        groups_sha256: hash of the groups file, or empty.
        extra_sha256: hash of the file of further tiles, or empty.
        start_sha256: hash of the network to start from, or empty.
        soft_sha256: hash of the file of soft targets, or empty.
    """

    arch: str
    data: str
    out: str
    preset: str = "base"
    groups: str = ""
    epochs: int = 40
    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    warmup_epochs: float = 1.0
    patience: int = 10
    validate_every: int = 1
    seed: int = 0
    loss: str = "cross-entropy"
    ignore_background: bool = True
    augment: str = "flips-jitter"
    repeat: int = 1
    oversample: float = 0.0
    paste: float = 0.0
    dropout: float = 0.0
    options: tuple[str, ...] = ()
    deep_supervision: bool = False
    stage: str = "whole"
    start_from: str = ""
    precision: str = "float32"
    ema: float = 0.0
    swa: int = 0
    balance: str = "tiles"
    extra: str = ""
    soft: str = ""
    soft_weight: float = 0.5
    temperature: float = 1.0
    teacher: str = ""
    class_names: tuple[str, ...] = ()
    ignored_class: int | None = 0
    class_id: int | None = None
    group: str = ""
    folds: int = 5
    fold: int = 0
    train_all: bool = False
    max_tiles: int = 0
    monitor: Monitor = "suppressed"
    data_sha256: str = ""
    groups_sha256: str = ""
    extra_sha256: str = ""
    start_sha256: str = ""
    soft_sha256: str = ""

    def __post_init__(self) -> None:
        """Refuse an impossible run.

        Raises:
            PlanError: naming the option, its value and what is allowed.
        """
        at_least = {"epochs": 1, "batch_size": 1, "patience": 0, "seed": 0, "folds": 2, "fold": 0, "max_tiles": 0}
        at_least |= {"repeat": 1, "swa": 0, "validate_every": 1}
        for name, least in at_least.items():
            value = getattr(self, name)
            _require(_is_int(value) and value >= least, name, value, f"an integer of at least {least} is required")
        for name, allowed, above_zero in (
            ("learning_rate", 10.0, True),
            ("weight_decay", 1.0, False),
            ("warmup_epochs", float(self.epochs), False),
            ("dropout", 0.9, False),
            ("oversample", 1.0, False),
            ("paste", 1.0, False),
            ("ema", 0.99999, False),
            ("soft_weight", 1.0, False),
            ("temperature", 100.0, True),
        ):
            value = getattr(self, name)
            good = math.isfinite(value) and 0 <= value <= allowed and (value > 0 or not above_zero)
            _require(good, name, value, f"allowed are {'numbers above 0' if above_zero else '0'} to {allowed:g}")
        _require(self.seed < 2**32, "seed", self.seed, "allowed are 0 to 4294967295")
        _require(
            self.fold < self.folds, "fold", self.fold, f"allowed are 0 to {self.folds - 1} with {self.folds} folds"
        )
        _require(self.swa <= self.epochs, "swa", self.swa, f"allowed are 0 to {self.epochs}, the epochs")
        _require(not (self.swa and self.ema), "swa", self.swa, "with --ema there is an average already; omit one")
        plain = self.balance == "tiles" or self.oversample == 0
        _require(plain, "balance", self.balance, "it balances classes itself; omit --oversample")
        allowed_words = (("monitor", MONITORS), ("precision", PRECISIONS), ("stage", STAGES), ("balance", BALANCES))
        for name, words in allowed_words:
            value = getattr(self, name)
            _require(value in words, name, value, f"allowed are {', '.join(words)}")
        _require(Path(self.out).suffix == ".keras", "out", self.out, "the name must end in .keras")
        for name in ("class_id", "ignored_class"):
            value = getattr(self, name)
            good = value is None or (_is_int(value) and value >= 0)
            _require(good, name, value, "a class number of at least 0 is required")
        unique = len(set(self.class_names)) == len(self.class_names)
        _require(unique, "class_names", ",".join(self.class_names), "class names must be unique")

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits, equal only for runs that train the same network on the same data."""
        unsaid = {item.name for item in fields(self) if item.name in LATER and getattr(self, item.name) == item.default}
        decisive = {key: value for key, value in asdict(self).items() if key not in PLACES | unsaid}
        text = json.dumps(decisive, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def outside(self) -> int | None:
        """Class of pixels that augmentation brings in from outside a tile; None: mirror the tile at its border."""
        return self.ignored_class

    @property
    def checkpoint(self) -> Path:
        """Path of the checkpoint that an unfinished run resumes from."""
        return self.beside("checkpoint.npz")

    def of_fold(self, folder: Path, fold: int) -> FitConfig:
        """Return the run of one fold of several, whose network goes into a folder.

        In the paths of files that may be of the fold alone, ``{fold}`` stands for its number.
        """
        own: dict[str, Any] = {
            name: getattr(self, name).replace("{fold}", str(fold)) for name in ("extra", "soft", "start_from")
        }
        return replace(self, fold=fold, out=str(folder / f"{self.arch}-fold{fold}.keras"), **own)

    @property
    def stem(self) -> Path:
        """Path of the network without its suffix; the other results of the run are named after it."""
        return Path(self.out).with_suffix("")

    def beside(self, ending: str) -> Path:
        """Return the path of another result of the run, for instance ``unet.history.csv``."""
        return self.stem.with_name(f"{self.stem.name}.{ending}")

    def to_toml(self, **tables: dict[str, Any]) -> str:
        """Return the run as TOML: one table ``config`` and further tables of scalars (``None`` values are omitted)."""
        lines: list[str] = []
        for title, table in {"config": asdict(self), **tables}.items():
            lines.append(f"[{title}]")
            lines += [f"{_toml_key(key)} = {_toml(value)}" for key, value in table.items() if value is not None]
            if title == "config" and self.ignored_class is None:
                lines.append("# ignored_class: none")
            lines.append("")
        return "\n".join(lines)

    @classmethod
    def from_toml(cls, text: str) -> FitConfig:
        """Read the table ``config`` of a ``run.toml``.

        Raises:
            InputError: the text is not TOML, lacks the table, or has an unknown field.
            PlanError: a value is of another type or out of range.
        """
        try:
            table = tomllib.loads(text)["config"]
            if not isinstance(table, dict):
                raise TypeError("config is no table")
            known = {item.name for item in fields(cls)}
            unknown = sorted(set(table) - known)
            if unknown:
                raise InputError(
                    f"run.toml: unknown option {', '.join(unknown)}; known options: {', '.join(sorted(known))}"
                )
            table = {name: _typed(name, value) for name, value in table.items()}
            # TOML has no null: an absent ignored class means that there is none.
            table.setdefault("ignored_class", None)
            return cls(**table)
        except (tomllib.TOMLDecodeError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"run.toml: not the record of a run ({error}); give a file written by fit") from None


def _require(condition: bool, name: str, value: object, allowed: str) -> None:
    if not condition:
        raise PlanError(f"{name.replace('_', '-')}: {repr(value)[:80]} was given; {allowed}")


def _typed(name: str, value: Any) -> Any:
    """Return a value of a ``run.toml`` as its field wants it.

    Raises:
        PlanError: it is of another type.
    """
    kind = str(next(item.type for item in fields(FitConfig) if item.name == name))
    if kind.startswith("tuple"):
        texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
        _require(texts, name, value, "a list of texts is required")
        return tuple(value)
    if kind == "float":
        number = isinstance(value, float) or (_is_int(value) and abs(value) < 2**63)
        _require(number, name, value, "a number is required")
        return float(value)
    if kind.startswith("int"):
        _require(_is_int(value), name, value, "a whole number is required")
    elif kind == "bool":
        _require(isinstance(value, bool), name, value, "true or false is required")
    else:
        _require(isinstance(value, str), name, value, "a text is required")
    return value


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _toml_key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else _toml(key)


def _toml(value: Any) -> str:
    if hasattr(value, "item"):  # a NumPy scalar, whose repr is no TOML
        value = value.item()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    # A JSON string without surrogate escapes is a TOML basic string once DEL is escaped as well.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
