"""The systems of the report (AN2DL second homework, ANNalyzers, 2024), and the members of the final ensemble.

Their names and scores in the report, and the arguments of `trainers` that train them here. Shared arguments
(data, folds, preset, learning rate) are added by :mod:`benchmarks.findings`. The report trains with the background in
the loss; the members exclude it.
"""

from __future__ import annotations

from dataclasses import dataclass

KEEP = "--keep-background"


@dataclass(frozen=True)
class System:
    """One row of the table.

    Attributes:
        name: file name of its network.
        title: name in the table.
        notebook: the report's notebook; empty if the report does not have it.
        kaggle: the report's score on its test set, MIoU; None if it gives none.
        arguments: of `trainers`, the command first.
        epochs: most epochs; all but members stop early, see ``PATIENCE`` of :mod:`benchmarks.findings`.
        needs: a system that is trained before it.
        folded: whether it is a network per fold, as a member of an ensemble is; not those of the report.
        first: the system whose networks it starts from, fold by fold.
    """

    name: str
    title: str
    notebook: str
    kaggle: float | None
    arguments: str
    epochs: int = 60
    needs: str = ""
    folded: bool = False
    first: str = ""

    @property
    def teaches(self) -> bool:
        """Return whether trials and the student learn from it."""
        return self.folded and not self.first

    @property
    def member(self) -> bool:
        """Return whether it is a member of the final ensemble."""
        return self.name in MEMBERS

    @property
    def is_set(self) -> bool:
        """Return whether it is a set of specialists: a folder of networks."""
        return self.arguments.startswith("fit-specialists")

    @property
    def arch(self) -> str:
        """Return the architecture of its networks."""
        words = self.arguments.split()
        return "one_class" if self.is_set else words[1]


def _report(name: str, title: str, notebook: str, kaggle: float | None, arguments: str, needs: str = "") -> System:
    return System(name, title, notebook, kaggle, f"{arguments} {KEEP}", needs=needs)


def _folded(name: str, title: str, arguments: str, epochs: int, first: str = "") -> System:
    return System(name, title, "", None, f"fit-folds {arguments}", epochs, folded=True, first=first)


#: The members of the final ensemble, and the one network beside it that learned from others.
MEMBERS, STUDENT = ("pan-zoo", "residual-zoo"), "student"
#: The mix of losses that cross-validation finds is put in the place of ``MIX``.
MIX = "{mix}"
#: What starts from another: its network of the same fold, what those that teach say of images without labels, each
#: fold by itself, and what they say of labelled tiles that they did not see.
FIRST, SOFT, LABELLED = "{first}", "{soft}", "{labelled}"
_PAN = "pan --dropout 0.1 --loss dice+0.5*focal --augment mirror+jitter+translate+cutout"
_RESIDUAL = (
    "residual_attention_unet --loss cross-entropy+dice --augment mirror+jitter+translate+cutout --oversample 0.3"
)
_SECOND = f"{_PAN} --from {FIRST} --extra {SOFT} --soft-weight 0.5 --learning-rate 0.001"
#: Networks of what is trained by folds, each without one.
FOLDS = 5

SYSTEMS = (
    _report("unet", "U-Net", "PrimoTentativo", 0.4098, "fit unet --augment none"),
    _report("upp", "U-Net++", "UNet++", 0.4779, "fit unet_plus_plus --augment none"),
    _report("upp-flips", "U-Net++, flips", "UNet++", 0.4955, "fit unet_plus_plus --augment flips"),
    _report(
        *("upp-weighted", "U-Net++, flips, weighted loss", "UNet++ Experiment", 0.50),
        "fit unet_plus_plus --augment flips --loss weighted-cross-entropy",
    ),
    _report(
        *("upp-dice", "U-Net++, flips, Dice", "UNet++ Experiment", 0.49),
        "fit unet_plus_plus --augment flips --loss dice",
    ),
    _report(
        *("upp-focal", "U-Net++, flips, focal", "UNet++ Experiment", None),
        "fit unet_plus_plus --augment flips --loss focal",
    ),
    _report(
        *("upp-boundary", "U-Net++, flips, boundary", "UNet++ Experiment", None),
        "fit unet_plus_plus --augment flips --loss boundary",
    ),
    _report(
        *("upp-mix", "U-Net++, flips, best mix of losses", "CrossValidation", 0.50),
        f"fit unet_plus_plus --augment flips --loss {MIX}",
    ),
    _report("pan", "PAN", "PAN", 0.51, "fit pan --augment flips --option squeeze=false"),
    _report(
        *("pan-full", "PAN, squeeze-and-excitation, dropout, custom augmentation", "PAN", 0.53),
        "fit pan --augment custom --dropout 0.1",
    ),
    _report("double", "two cascaded U-Nets, end to end", "FeaturesFusion", 0.52, "fit double_unet --augment flips"),
    _report(
        *("double-first", "two cascaded U-Nets, first stage only", "FeaturesFusion", None),
        "fit double_unet --augment flips --stage first",
    ),
    _report(
        *("double-staged", "two cascaded U-Nets, in two stages", "FeaturesFusion", 0.52),
        "fit double_unet --augment flips --stage second",
        needs="double-first",
    ),
    _report(
        *("transformer", "U-Net, transformer bottleneck, gated skips", "Unet-Vgg16", 0.54),
        "fit transformer_unet --augment flips",
    ),
    System("five", "five one-class networks", "FiveNets", 0.48, "fit-specialists --augment flips"),
    # The report shows it after a short training (0.61) and a long one.
    _report("unet-flips", "U-Net, flips", "UNet_post_processing", 0.70, "fit unet --augment flips"),
    System(
        *("unet-left-out", "U-Net, flips, background excluded from the loss", "", None),
        "fit unet --augment flips",
    ),
    _folded("pan-zoo", "PAN, five folds", _PAN, 30),
    _folded("residual-zoo", "residual attention U-Net, five folds", _RESIDUAL, 30),
    _folded("pan-soft", "PAN, five folds, soft pseudo-labels", _SECOND, 8, "pan-zoo"),
    _folded(STUDENT, "PAN, distilled, five folds", f"{_SECOND} --soft {LABELLED}", 8, "pan-zoo"),
)
