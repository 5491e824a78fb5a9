"""Cross-validation of loss mixes: Optuna proposes and prunes, every fold's score is saved at once."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from engine.errors import InputError, ModelError, OutputError, PlanError
from engine.utils.console import say
from trainers.config import FitConfig
from trainers.files import replacing
from trainers.fit import load_for, prepared, split, target_of
from trainers.learner import make_learner
from trainers.loop import monitored_score, steps_of, train

if TYPE_CHECKING:
    import optuna

#: The losses that are mixed, as in the report.
MIXED = ("dice", "boundary", "focal")
SEARCHES = ("losses",)
STUDY, TABLE = "study.log", "candidates.csv"
#: The number of an unfinished candidate in its earlier trial.
_AGAIN = "again"
#: A share of the mix below this counts as 0.
LEAST = 0.01


@dataclass(frozen=True)
class Candidate:
    """One mix of losses.

    Attributes:
        number: its number in the study.
        loss: the expression.
        scores: best validation score of each fold that was trained, in the order of the folds.
        state: ``complete``, ``stopped`` (its first fold missed the threshold, or its loss became infinite) or
            ``unfinished``.
    """

    number: int
    loss: str
    scores: tuple[float, ...]
    state: str

    @property
    def mean(self) -> float:
        """Mean of the scores so far; NaN without any."""
        return sum(self.scores) / len(self.scores) if self.scores else float("nan")


class CrossValidation:
    """A search for the best mix of losses, resumable from its folder.

    Args:
        config: the run of any one fold; ``loss``, ``fold`` and ``out`` are filled in for each.
        folder: where the study and its table go.
        search: what to search, out of :data:`SEARCHES`.
        trials: total number of candidates to try, including those of earlier starts.
        threshold: a candidate whose first fold scores below this is stopped.

    Raises:
        EngineError: options or data do not fit, Optuna is missing, or the folder contains another study.
    """

    def __init__(
        self, config: FitConfig, folder: Path, search: str = "losses", trials: int = 20, threshold: float = 0.0
    ) -> None:
        if search not in SEARCHES:
            raise PlanError(f"search: {search!r} is unknown; choose one of {', '.join(SEARCHES)}")
        if not 0 <= threshold <= 1:
            raise PlanError(f"threshold: {threshold:g} was given; scores run from 0 to 1")
        if config.train_all:
            raise PlanError("train-all: no tiles would be left for validation; omit it")
        self.config = prepared(replace(config, loss=MIXED[0], fold=0, train_all=False))
        self.folder, self.trials, self.threshold = folder, trials, threshold
        self.data = load_for(self.config)
        # Too few groups for the folds, and the like, are refused before anything is written.
        split(self.config, self.data)
        self.study = self._opened()

    def run(self) -> None:
        """Try candidates until there are enough; the table is written after each.

        Raises:
            EngineError: the data do not fit, or the table cannot be written.
            KeyboardInterrupt: the user stopped it; the folds scored so far are saved.
        """
        try:
            self._take_up()
            missing = self.trials - sum(one.state != "unfinished" for one in self.candidates())
            if missing > 0:
                self.study.optimize(self._score, n_trials=missing, callbacks=[lambda *_: self._write()])
        finally:
            self._write()

    def candidates(self) -> list[Candidate]:
        """Return the candidates: complete ones by their mean, best first, then stopped and unfinished ones."""
        found = []
        trials = self.study.get_trials(deepcopy=False)
        taken_up = _taken_up(trials)
        for trial in trials:
            scores = tuple(trial.user_attrs[key] for key in self._keys if key in trial.user_attrs)
            state = {"COMPLETE": "complete", "PRUNED": "stopped"}.get(trial.state.name, "unfinished")
            if trial.number not in taken_up and (scores or state != "unfinished"):
                found.append(Candidate(trial.number, expression(trial.params or _fixed(trial)), scores, state))
        order = ("complete", "unfinished", "stopped")
        return sorted(found, key=lambda one: (order.index(one.state), -one.mean, one.number))

    @property
    def _keys(self) -> list[str]:
        return [f"fold_{fold}" for fold in range(self.config.folds)]

    def _opened(self) -> optuna.Study:
        try:
            import optuna
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend
        except ModuleNotFoundError:
            raise PlanError("the package 'optuna' is not installed: pip install 'maskfuse[train]'") from None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        path = self.folder / STUDY
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            storage = JournalStorage(JournalFileBackend(str(path)))
            study = optuna.create_study(
                storage=storage,
                study_name="losses",
                direction="maximize",
                load_if_exists=True,
                pruner=optuna.pruners.ThresholdPruner(lower=self.threshold),
            )
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror or error}); choose another --out") from None
        except (ValueError, KeyError) as error:
            raise InputError(f"{path}: damaged ({error}); delete it or choose another --out") from None
        # A resumed study must not propose its first candidates again.
        study.sampler = optuna.samplers.TPESampler(seed=self.config.seed + len(study.get_trials(deepcopy=False)))
        known = study.user_attrs.get("run")
        if known is None:
            study.set_user_attr("run", self.config.hash)
            # Each loss alone is the baseline for the mixes.
            for name in MIXED:
                study.enqueue_trial({other: float(other == name) for other in MIXED})
        elif known != self.config.hash:
            raise PlanError(
                f"{path}: contains the study of another run ({known}, this one is {self.config.hash}); "
                "choose another --out"
            )
        return study

    def _take_up(self) -> None:
        """Queue unfinished candidates of an earlier start again, with the scores they have.

        To Optuna a killed candidate is still running; one ended by Ctrl-C or an error has failed.
        """
        from optuna.trial import TrialState

        trials = self.study.get_trials(states=(TrialState.RUNNING, TrialState.FAIL))
        taken_up = _taken_up(self.study.get_trials(deepcopy=False))
        for trial in trials:
            if trial.number not in taken_up and trial.params:
                self.study.enqueue_trial(trial.params, user_attrs={**trial.user_attrs, _AGAIN: trial.number})
            if trial.state == TrialState.RUNNING:
                self.study.tell(trial.number, state=TrialState.FAIL)

    def _score(self, trial: optuna.Trial) -> float:
        """Train a candidate fold by fold and return its mean score."""
        import optuna

        loss = expression({name: trial.suggest_float(name, 0.0, 1.0) for name in MIXED})
        scores: list[float] = []
        for fold, key in enumerate(self._keys):
            if key not in trial.user_attrs:
                say(f"candidate {trial.number}: {loss}, fold {fold + 1} of {self.config.folds}")
                try:
                    trial.set_user_attr(key, self._fold(loss, fold))
                except ModelError as error:
                    say(f"candidate {trial.number} stopped: {error}")
                    raise optuna.TrialPruned from None
            scores.append(float(trial.user_attrs[key]))
            trial.report(scores[-1], fold)
            if fold == 0 and trial.should_prune():
                say(f"candidate {trial.number} stopped: {scores[0]:.4f} is below {self.threshold:g}")
                raise optuna.TrialPruned
        return sum(scores) / len(scores)

    def _fold(self, loss: str, fold: int) -> float:
        """Return the best validation score of one fold."""
        run = replace(self.config, loss=loss, fold=fold)
        keras.utils.set_random_seed(run.seed)
        training, held_out = split(run, self.data)
        shape = self.data.images.shape[1:]
        learner = make_learner(run, shape, target_of(run, training), steps_of(run, training))
        best = train(run, learner, training, held_out).best
        # The graphs of all folds in one process would add up.
        keras.utils.clear_session()
        return monitored_score(run, best)

    def _write(self) -> None:
        with replacing(self.folder / TABLE) as partial:
            partial.write_text(as_csv(self.candidates(), self.config.folds), "utf-8")


def expression(weights: dict[str, Any]) -> str:
    """Return the loss expression of weights from 0 to 1, normalised to a sum of 1; dice if all of them are 0."""
    total = sum(weights.get(name, 0.0) for name in MIXED)
    shares = {name: weights.get(name, 0.0) / total for name in MIXED} if total > 0 else {MIXED[0]: 1.0}
    kept = {name: share for name, share in shares.items() if share >= LEAST}
    return next(iter(kept)) if len(kept) == 1 else "+".join(f"{share:.2f}*{name}" for name, share in kept.items())


def _taken_up(trials: Sequence[Any]) -> set[int]:
    """Return the numbers of the candidates queued again under a new number."""
    return {trial.user_attrs[_AGAIN] for trial in trials if _AGAIN in trial.user_attrs}


def _fixed(trial: Any) -> dict[str, Any]:
    """Return the weights of a candidate that is queued and not started."""
    return dict(trial.system_attrs.get("fixed_params", {}))


def as_csv(candidates: Sequence[Candidate], folds: int) -> str:
    """Return the candidates as CSV: number, loss, state, one column per fold, mean."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["candidate", "loss", "state", *(f"fold_{fold}" for fold in range(folds)), "mean"])
    for one in candidates:
        scores = [repr(score) for score in one.scores] + [""] * (folds - len(one.scores))
        writer.writerow([one.number, one.loss, one.state, *scores, repr(one.mean) if one.scores else ""])
    return stream.getvalue()


def table(candidates: Sequence[Candidate], folds: int) -> str:
    """Return the candidates as a printable table, best first."""
    if not candidates:
        return "no fold was scored"
    width = max(len(one.loss) for one in candidates)
    lines = [f"{'#':>4}  {'loss':<{width}}  {'mean':>6}  " + "  ".join(f"fold {k + 1:<2}" for k in range(folds))]
    for one in candidates:
        scores = [f"{score:7.4f}" for score in one.scores] + [f"{'-':>7}"] * (folds - len(one.scores))
        note = "" if one.state == "complete" else f"  {one.state}"
        lines.append(f"{one.number:>4}  {one.loss:<{width}}  {one.mean:6.4f}  " + "  ".join(scores) + note)
    return "\n".join(lines)
