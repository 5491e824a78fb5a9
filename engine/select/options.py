"""The options of ``engine select``, and the checks before anything is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.errors import PlanError
from engine.fusion.doubt import DEFAULT_DOUBT, Unknown
from engine.fusion.strategies import STRATEGIES, named_strategy
from engine.inference.arguments import LABEL_STRATEGIES
from engine.inference.ensemble import Ensemble
from engine.metrics import CONVENTIONS
from engine.models.members import label_members
from engine.models.views import named_views, told_views
from engine.outputs.open import check_not_read, check_replaceable
from engine.runs.options import Options
from engine.select.search import METHODS, MOST_EXHAUSTIVE, Settings

PIXELS = 100_000
FOLDS = 5
# What ``--views auto`` tries.
AUTO_VIEWS = ("horizontal", "both", "d4")
MOST_ROUNDS, MOST_BAGS = 200, 100


@dataclass(frozen=True)
class SelectOptions:
    """The user's options.

    Attributes:
        job: models or plan, input, labels, suppression, views and contract fields, as for ``engine ensemble``.
        out: the plan file to write.
        groups: file with the scene of each image; empty if not given.
        metric: the MIoU convention to maximise.
        settings: settings of the search.
        folds: number of folds for cross-fitting.
        pixels: number of pixels to search on.
        clean_up: whether to try the clean-up of small regions.
        calibrate: whether to calibrate probabilities.
        ranked: whether to try labels that are decided for whole images.
        unknown_risk: bound on the expected risk of a new group, for a threshold of doubt; None for no threshold.
        doubt: the measure of doubt.
        budget: approximate seconds for the search; 0 for no limit.
        cache: folder that stores the members' probabilities; None for a temporary one.
        command: the command line, for the plan's comment.
        voters: whether a member outputs labels: then only strategies that count labels are tried.
    """

    job: Options
    out: Path
    groups: str = ""
    metric: str = "keras-ignore"
    settings: Settings = field(default_factory=Settings)
    folds: int = FOLDS
    pixels: int = PIXELS
    clean_up: bool = True
    ranked: bool = False
    budget: float = 0.0
    calibrate: bool = False
    unknown_risk: float | None = None
    doubt: str = DEFAULT_DOUBT
    cache: Path | None = None
    command: str = ""
    voters: bool = False

    @property
    def row_strategies(self) -> tuple[str, ...]:
        """Return the strategies tried on all members as they are: of all members even staple can be searched."""
        if self.voters:
            return LABEL_STRATEGIES
        return tuple(STRATEGIES) if self.settings.strategies == Settings().strategies else self.settings.strategies


def view_sets(given: str | None) -> tuple[str, tuple[str, ...]]:
    """Return the views that all members run on, and other sets to try, as :func:`engine.models.views.told_views` does.

    Args:
        given: views as of ``engine ensemble``, ``auto``, or ``auto:`` and sets of views with slashes between them.

    Raises:
        PlanError: an unknown view.
    """
    name, _, listed = (given or "none").partition(":")
    if name != "auto":
        return told_views(named_views(given or "none")), ()
    found = [told_views(named_views(item)) for item in (listed.split("/") if listed else AUTO_VIEWS)]
    return "none", tuple(dict.fromkeys(item for item in found if item != "none"))


def check_options(options: SelectOptions) -> None:
    """Check everything that needs no file to be opened.

    Raises:
        PlanError: naming the option and what is allowed.
        OutputError: the plan cannot be written to the requested place.
    """
    settings = options.settings
    named = options.job.models or options.job.plan
    for needed, option in ((named, "--models"), (options.job.input, "--input")):
        if not needed:
            raise PlanError(f"{option} is missing: engine select needs --models, --input, --labels and --out")
    view_sets(options.job.views)
    if options.metric not in CONVENTIONS:
        raise PlanError(f"unknown metric {options.metric!r}; allowed are {', '.join(CONVENTIONS)}")
    if settings.method not in METHODS:
        raise PlanError(f"unknown method {settings.method!r}; allowed are {' and '.join(METHODS)}")
    for name in settings.strategies:
        named_strategy(name)
    if "staple" in settings.strategies or not settings.strategies:
        raise PlanError("--strategies: staple is fitted to whole images, so it cannot be searched on sampled pixels")
    for option, value, least, most in (
        ("--rounds", settings.rounds, 0, MOST_ROUNDS),
        ("--bags", settings.bags, 0, MOST_BAGS),
        ("--folds", options.folds, 2, 1000),
        ("--pixels", options.pixels, 100, 10**8),
    ):
        if not least <= value <= most:
            raise PlanError(f"{option} {value}; allowed are {least} to {most}")
    if not 0 <= options.budget < float("inf"):
        raise PlanError(f"--budget {options.budget:g}; give seconds above 0, or 0 for no limit")
    Unknown(1.0, options.doubt, options.unknown_risk)
    if options.unknown_risk is None and options.doubt != DEFAULT_DOUBT:
        raise PlanError("--doubt-map without --unknown-risk: say which risk the threshold is to bound, as in 0.05")
    if options.out.suffix.lower() != ".toml":
        raise PlanError(f"--out {options.out}: the plan is a .toml file")
    check_replaceable(options.out, options.job.overwrite)
    read = {"--input": options.job.input, "--labels": options.job.labels, "--plan": str(options.job.plan or "")}
    check_not_read(options.out, "plan", read)


def check_pool(ensemble: Ensemble, options: SelectOptions) -> None:
    """Refuse a pool that leaves nothing to select, or too much.

    Raises:
        PlanError: saying which.
    """
    count = len(ensemble.members)
    if count < 2 or ensemble.is_packed:
        raise PlanError(f"a pool of {count} member{'s' * (count != 1)} leaves nothing to select: name two or more")
    _check_voters(ensemble, options)
    if options.settings.method == "exhaustive" and count > MOST_EXHAUSTIVE:
        raise PlanError(f"--method exhaustive with {count} members; {MOST_EXHAUSTIVE} at most: use --method greedy")


def _check_voters(ensemble: Ensemble, options: SelectOptions) -> None:
    """Refuse options that members that output labels do not support."""
    names, asked = label_members(ensemble.members), options.settings.strategies
    if not names:
        return
    if asked not in (Settings().strategies, ("vote",)):
        raise PlanError(
            f"--strategies {','.join(asked)}: {names[0]} outputs labels, which have no probabilities: leave it out, or "
            "use --strategies vote (staple is tried on all members, too)"
        )
    for option, given in (
        ("--calibrate", options.calibrate),
        ("--rankseg", options.ranked),
        ("--unknown-risk", options.unknown_risk is not None),
    ):
        if given:
            raise PlanError(f"{option}: {names[0]} outputs labels, which have no probabilities: leave out {option}")


def for_voters(ensemble: Ensemble, options: SelectOptions) -> SelectOptions:
    """Return the options for members of which one outputs labels; those given where none does."""
    if not label_members(ensemble.members):
        return options
    return replace(options, settings=replace(options.settings, strategies=("vote",)), voters=True)


def with_strategies(settings: Settings, names: Sequence[str]) -> Settings:
    """Return the settings with strategies given as ``a,b`` or one by one; all if none are given."""
    listed = tuple(dict.fromkeys(name.strip() for item in names for name in item.split(",") if name.strip()))
    return replace(settings, strategies=listed) if listed else settings
