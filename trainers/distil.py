"""Knowledge distillation: one network learns the probabilities of an ensemble (Hinton et al., arXiv:1503.02531, 2015).

The teacher predicts the training tiles, each out of fold where its members have folds, and tiles without labels; the
student learns these probabilities, and the hard labels of the training tiles.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from engine.errors import PlanError
from trainers.config import FitConfig
from trainers.soft_targets import images_of, write_soft_targets


def taught(
    config: FitConfig, teacher: Path, unlabelled: str = "", folder: Path | None = None, overwrite: bool = False
) -> FitConfig:
    """Write the teacher's probabilities, unless they are there, and return the run that learns them.

    Args:
        config: the run of the student, without soft targets.
        teacher: an ``ensemble.toml``.
        unlabelled: images without labels, as in the engine's ``--input``; empty for none.
        folder: where the probabilities go, for several students of one teacher; None for ``NAME.teacher`` beside the
            student.
        overwrite: replace probabilities of another teacher or of other images.

    Raises:
        EngineError: the teacher fails, or does not fit the data.
    """
    if config.extra or config.soft:
        raise PlanError("extra, soft: distil writes these tiles itself; omit them, and name images with --unlabelled")
    if config.class_id is not None:
        raise PlanError("class-id: soft targets are of all classes; train a network of all classes")
    folder = folder or config.beside("teacher")
    labelled, more = folder / "labelled.npz", folder / "unlabelled.npz"
    digest, _ = write_soft_targets(teacher, images_of(Path(config.data)), labelled, True, overwrite)
    if unlabelled:
        digest, _ = write_soft_targets(teacher, unlabelled, more, False, overwrite)
    return replace(config, soft=str(labelled), extra=str(more) if unlabelled else "", teacher=digest)
