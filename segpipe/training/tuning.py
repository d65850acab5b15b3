"""A search for the training settings of a candidate: short trainings, judged on val; poor ones are ended early (Optuna).

The state of a search is kept in a folder of its plan, so that a stopped search continues, and several processes can share one.
The first trial uses the current settings.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segpipe.errors import ConfigError, DataError, SegpipeError
from segpipe.files import read_json
from segpipe.progress import say
from segpipe.training.optim.schedules import warmup_steps
from segpipe.training.plan import FirstCrops, NetworkPlan, Plan, Recipe
from segpipe.training.planning.label_statistics import balance_class_weights
from segpipe.training.train import HISTORY_FILE, train_on

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

    from segpipe.config import TrainParams
    from segpipe.data.manifest.fingerprint import Fingerprint
    from segpipe.training.sampling.crops import Reader

_VALIDATIONS = 5
"""Validations of a trial, after each of which it may be ended."""
_MIN_TRIALS_BEFORE_PRUNING = 4
_MIN_STEPS = 50
_AUGMENT_STRENGTHS = ["off", "light", "medium", "strong"]
Settings = dict[str, Any]
"""Keys of `train` with their values."""


def check_tunable(plan: Plan) -> NetworkPlan:
    """Return the plan of a network.

    Raises:
        ConfigError: It is the plan of a classical model, which has no training settings to tune.
    """
    if isinstance(plan, NetworkPlan):
        return plan
    raise ConfigError(
        f"{plan.family} is a classical family without training settings to tune",
        where=plan.candidate,
        fix="name a network",
    )


def trial_steps(plan: NetworkPlan) -> int:
    """Return the default number of steps of a trial: a quarter of the plan's, but at least 50."""
    return min(plan.recipe.steps, max(_MIN_STEPS, plan.recipe.steps // 4))


def _shorten(first: FirstCrops, share: float) -> dict[str, Any]:
    return first.model_dump() | {"steps": int(first.steps * share)}


@dataclass(frozen=True)
class TrialResult:
    """The result of a trial."""

    number: int
    settings: Settings
    score: float
    """Macro IoU on val: the best of the trial, or the last one before it was ended."""
    ended: str
    """One of "finished", "fell behind" and "diverged"."""


@dataclass(frozen=True)
class Search:
    """A search for settings around a plan."""

    plan: NetworkPlan
    settings: TrainParams
    """The candidate's `train` settings."""
    fingerprint: Fingerprint
    steps: int
    """Steps of each trial."""
    folder: Path
    """The folder of the search's state."""
    study: Study = field(init=False)

    def __post_init__(self) -> None:
        import optuna
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder.mkdir(parents=True, exist_ok=True)
        backend = JournalFileBackend(str(self.folder / "journal.log"))
        study = optuna.create_study(
            storage=optuna.storages.JournalStorage(backend),
            study_name=f"{self.steps}-steps",
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_MIN_TRIALS_BEFORE_PRUNING),
        )
        study.sampler = optuna.samplers.TPESampler(seed=self.plan.seed + len(study.trials), constant_liar=True)
        object.__setattr__(self, "study", study)
        if not study.trials:
            study.enqueue_trial(self._current_settings())

    def _has_terms(self) -> bool:
        """Return whether the loss is a sum of terms over pixels, whose weights can be tuned."""
        return self.plan.model_family.kind == "network"

    def _has_balance(self) -> bool:
        """Return whether the class weights are derived from frequencies, and not set."""
        return self._has_terms() and self.settings.class_weights is None

    def _current_settings(self) -> Settings:
        recipe = self.plan.recipe
        values: Settings = {
            "learning_rate": recipe.learning_rate,
            "weight_decay": recipe.weight_decay or 1e-4,
            "rare_crops": recipe.rare_crops,
            "augment": recipe.augment,
        }
        values |= {"class_balance": self.settings.class_balance} if self._has_balance() else {}
        values |= {"dice": recipe.loss.dice.weight} if self._has_terms() and recipe.loss.dice else {}
        return values

    def suggest(self, trial: Trial) -> Settings:
        """Return settings to try, as keys of `train`."""
        recipe = self.plan.recipe
        values: Settings = {
            "learning_rate": trial.suggest_float(
                "learning_rate", recipe.learning_rate / 10, recipe.learning_rate * 10, log=True
            ),
            "weight_decay": trial.suggest_float("weight_decay", 1e-4, max(0.3, recipe.weight_decay), log=True),
            "rare_crops": trial.suggest_float("rare_crops", 0.0, 1.0),
        }
        if self._has_balance():
            values["class_balance"] = trial.suggest_float("class_balance", 0.0, 1.0)
        dice = trial.suggest_float("dice", 0.0, 2.0) if self._has_terms() and recipe.loss.dice else None
        values = {name: float(f"{value:.3g}") for name, value in values.items()}
        if dice is not None:
            values["loss"] = self._loss_with_dice(float(f"{dice:.3g}"))
        return values | {"augment": trial.suggest_categorical("augment", _AUGMENT_STRENGTHS)}

    def _loss_with_dice(self, weight: float) -> Settings:
        """Return the terms of the loss in the form of params.yaml, with this weight of Dice."""
        loss: Settings = {}
        for name, term in self.plan.recipe.loss.terms.items():
            options = term.model_dump(mode="json", exclude={"weight"}, exclude_defaults=True)
            term_weight = weight if name == "dice" else term.weight
            loss[name] = {"weight": term_weight, **options} if options else term_weight
        return loss

    def trial_plan(self, settings: Settings) -> NetworkPlan:
        """Return the plan of a trial: the candidate's own, with these settings and fewer steps."""
        recipe, settings = self.plan.recipe, dict(settings)
        if "class_balance" in settings:
            pixels = self.fingerprint.class_pixels["train"]
            settings["class_weights"] = balance_class_weights(pixels, settings.pop("class_balance"))
        shortened = {
            "steps": self.steps,
            "warmup_steps": warmup_steps(self.steps, recipe.schedule, self.settings.warmup),
            "patience": None,
            "freeze_steps": recipe.freeze_steps * self.steps // recipe.steps,
            "first": recipe.first and _shorten(recipe.first, self.steps / recipe.steps),
            "val_every": math.ceil(self.steps / _VALIDATIONS),
            "cleaning": "none",
            "tta": "none",
        }
        trial_recipe = Recipe.model_validate(recipe.model_dump() | shortened | settings)
        # Without settings, the pace monitor is off: the steps of a trial do not follow from a budget, and searches that share a
        # machine are slower than planned.
        changes = {"recipe": trial_recipe, "postprocess": None, "settings": None}
        return self.plan.model_copy(update=changes)

    def run(self, trials: int, train: Reader, val: Reader) -> None:
        """Run trials until there are this many, including those of earlier runs and of other processes.

        Args:
            trials: the number of trials.
            train: the training split.
            val: the validation split.
        """
        from filelock import FileLock
        from optuna.trial import TrialState

        study_lock = FileLock(self.folder / "study.lock")
        while True:
            with study_lock:
                self._requeue_stopped_trials()
                states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
                if len(self.study.get_trials(states=states)) >= trials:
                    return
                trial = self.study.ask()
                trial_lock = FileLock(self.folder / f"{trial.number}.lock")
                trial_lock.acquire()
            with trial_lock:
                self._run_trial(trial, train, val)
            trial_lock.release(force=True)

    def _requeue_stopped_trials(self) -> None:
        """Queue the trials again whose process was stopped: nothing holds their lock."""
        from filelock import FileLock, Timeout
        from optuna.trial import TrialState

        for trial in self.study.get_trials(states=(TrialState.RUNNING,)):
            try:
                with FileLock(self.folder / f"{trial.number}.lock", timeout=0):
                    say(f"trial {trial.number} was stopped: it is continued")
                    self.study.tell(trial.number, state=TrialState.FAIL)
                    if trial.params:
                        self.study.enqueue_trial(trial.params)
            except Timeout:
                pass  # another process runs it

    def _run_trial(self, trial: Trial, train: Reader, val: Reader) -> None:
        import optuna

        settings = self.suggest(trial)
        trial.set_user_attr("settings", settings)
        plan = self.trial_plan(settings)
        # Named by what is computed, so that a trial that is continued finds its checkpoint.
        folder = self.folder / plan.sha256[:16]
        say(f"trial {trial.number}: {json.dumps(settings)}")

        def report(step: int, score: float) -> None:
            trial.report(score, step)
            if trial.should_prune():
                raise optuna.TrialPruned

        try:
            train_on(
                plan,
                self.fingerprint.classes,
                train,
                val,
                folder / "model",
                folder / "live",
                folder / "checkpoints",
                on_validation=report,
            )
            score = read_json(folder / "model" / HISTORY_FILE)["best_score"]
            if score is None:
                raise DataError(
                    "the validation split cannot rank settings",
                    found="a single class in it",
                    expected="images with at least two classes",
                    fix="move images with the other classes to val (samples.csv)",
                )
            self.study.tell(trial, score)
        except optuna.TrialPruned:
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        except SegpipeError as error:
            if (
                type(error) is not SegpipeError
            ):  # its subclasses concern the plan, the data or the machine, not these settings
                raise
            trial.set_user_attr("diverged", True)
            self.study.tell(trial, 0.0)
        shutil.rmtree(folder, ignore_errors=True)

    def results(self) -> list[TrialResult]:
        """Return the results of all trials that ended, the best first; those that were ended early follow the others."""
        from optuna.trial import TrialState

        trials = self.study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
        table = [TrialResult(t.number, t.user_attrs["settings"], _score(t), _ended(t)) for t in trials]
        return sorted(table, key=lambda result: (result.ended != "finished", -result.score, result.number))


def _score(trial: FrozenTrial) -> float:
    value = trial.value if trial.value is not None else list(trial.intermediate_values.values())[-1]
    return float(value)


def _ended(trial: FrozenTrial) -> str:
    if "diverged" in trial.user_attrs:
        return "diverged"
    return "finished" if trial.state.name == "COMPLETE" else "fell behind"
