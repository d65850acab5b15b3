"""A search for a candidate's training settings: short trainings, those that fall behind ended early (Optuna), judged on `val`.

What is found lies in a folder of the plan's own, so that a search that was stopped goes on, and several processes can share one.
The first trial is the settings as they are.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segpipe.errors import ConfigError, SegpipeError
from segpipe.files import read_json
from segpipe.progress import say
from segpipe.training.loop import HISTORY_FILE, train_on
from segpipe.training.optim.schedules import warmup_steps
from segpipe.training.plan import FirstCrops, Plan, Recipe
from segpipe.training.planning.recipe import choose_class_weights

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

    from segpipe.config import TrainParams
    from segpipe.data.manifest.fingerprint import Fingerprint
    from segpipe.training.sampling.crops import Reader

_VALIDATIONS = 5
"""Of a trial: where it can be found to fall behind."""
_UNJUDGED = 4
"""Trials before any is ended early."""
_STRENGTHS = ["off", "light", "medium", "strong"]
Settings = dict[str, Any]
"""Keys of `train` and their values."""


def trial_steps(plan: Plan) -> int:
    """Steps of a trial where nothing else is asked for: a quarter of the plan's, at least 50."""
    return min(plan.recipe.steps, max(50, plan.recipe.steps // 4)) if plan.recipe else 1


def _shortened(first: FirstCrops, share: float) -> dict[str, Any]:
    return first.model_dump() | {"steps": int(first.steps * share)}


@dataclass(frozen=True)
class TrialResult:
    """A trial that ended."""

    number: int
    settings: Settings
    score: float
    """Macro IoU on `val`: the best of the trial, or the last before it was ended."""
    ended: str
    """finished, fell behind, diverged."""


@dataclass(frozen=True)
class Search:
    """What can be tried, and where."""

    plan: Plan
    wanted: TrainParams
    fingerprint: Fingerprint
    steps: int
    """Of a trial."""
    folder: Path
    study: Study = field(init=False)

    def __post_init__(self) -> None:
        import optuna
        from optuna.storages.journal import JournalFileBackend

        if self.plan.recipe is None:
            raise ConfigError(
                f"{self.plan.family} is fitted, and has no training to tune",
                where=self.plan.candidate,
                fix="name a network",
            )
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder.mkdir(parents=True, exist_ok=True)
        backend = JournalFileBackend(str(self.folder / "journal.log"))
        study = optuna.create_study(
            storage=optuna.storages.JournalStorage(backend),
            study_name=f"{self.steps}-steps",
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_UNJUDGED),
        )
        study.sampler = optuna.samplers.TPESampler(seed=self.plan.seed + len(study.trials), constant_liar=True)
        object.__setattr__(self, "study", study)
        if not study.trials:
            study.enqueue_trial(self._as_they_are())

    def _sums_terms(self) -> bool:
        """Whether the loss is a sum of terms over pixels, whose weights can be tuned."""
        return self.plan.model_family.kind == "network"

    def _balances(self) -> bool:
        """Whether the weights of classes follow from how frequent they are, and nobody set them."""
        return self._sums_terms() and self.wanted.class_weights is None

    def _as_they_are(self) -> Settings:
        recipe, wanted = self._recipe, self.wanted
        start = {"learning_rate": recipe.learning_rate, "weight_decay": recipe.weight_decay or 1e-4}
        start |= {"rare_crops": recipe.rare_crops}
        values: Settings = start | {"augment": recipe.augment}
        values |= {"class_balance": wanted.class_balance} if self._balances() else {}
        values |= {"dice": recipe.loss.dice.weight} if self._sums_terms() and recipe.loss.dice else {}
        return values

    @property
    def _recipe(self) -> Recipe:
        assert self.plan.recipe is not None
        return self.plan.recipe

    def suggest(self, trial: Trial) -> Settings:
        """Settings to try, as keys of `train`."""
        recipe = self._recipe
        found: Settings = {
            "learning_rate": trial.suggest_float(
                "learning_rate", recipe.learning_rate / 10, recipe.learning_rate * 10, log=True
            ),
            "weight_decay": trial.suggest_float("weight_decay", 1e-4, max(0.3, recipe.weight_decay), log=True),
            "rare_crops": trial.suggest_float("rare_crops", 0.0, 1.0),
        }
        if self._balances():
            found["class_balance"] = trial.suggest_float("class_balance", 0.0, 1.0)
        dice = trial.suggest_float("dice", 0.0, 2.0) if self._sums_terms() and recipe.loss.dice else None
        found = {name: float(f"{value:.3g}") for name, value in found.items()}
        if dice is not None:
            found["loss"] = self._loss_with(float(f"{dice:.3g}"))
        return found | {"augment": trial.suggest_categorical("augment", _STRENGTHS)}

    def _loss_with(self, dice: float) -> Settings:
        """The loss's terms as params.yaml has them, with another weight of Dice."""
        loss: Settings = {}
        for name, term in self._recipe.loss.terms.items():
            options = term.model_dump(mode="json", exclude={"weight"}, exclude_defaults=True)
            weight = dice if name == "dice" else term.weight
            loss[name] = {"weight": weight, **options} if options else weight
        return loss

    def planned(self, settings: Settings) -> Plan:
        """The plan of a trial: the candidate's own, with these settings, and short."""
        recipe, settings = self._recipe, dict(settings)
        if "class_balance" in settings:
            pixels = self.fingerprint.class_pixels["train"]
            settings["class_weights"] = choose_class_weights(pixels, settings.pop("class_balance"))
        short = {
            "steps": self.steps,
            "warmup_steps": warmup_steps(self.steps, recipe.schedule, self.wanted.warmup),
            "patience": None,
            "freeze_steps": recipe.freeze_steps * self.steps // recipe.steps,
            "first": recipe.first and _shortened(recipe.first, self.steps / recipe.steps),
            "val_every": math.ceil(self.steps / _VALIDATIONS),
            "cleaning": "none",
            "tta": "none",
        }
        changed = Recipe.model_validate(recipe.model_dump() | short | settings)
        # Its steps follow from no budget, and those of several searches side by side are no slower than anybody planned.
        return self.plan.model_copy(update={"recipe": changed, "postprocess": None, "settings": None})

    def run(self, trials: int, train: Reader, val: Reader) -> None:
        """Try until there are so many trials, those of earlier and of other processes included."""
        from filelock import FileLock, Timeout
        from optuna.trial import TrialState

        shared = FileLock(self.folder / "study.lock")
        while True:
            with shared:
                for stale in self.study.get_trials(states=(TrialState.RUNNING,)):
                    try:
                        with FileLock(self.folder / f"{stale.number}.lock", timeout=0):
                            say(f"trial {stale.number} was stopped: it is taken up again")
                            self.study.tell(stale.number, state=TrialState.FAIL)
                            if stale.params:
                                self.study.enqueue_trial(stale.params)
                    except Timeout:
                        pass  # another process is at it
                taken = self.study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING))
                if len(taken) >= trials:
                    return
                trial = self.study.ask()
                mine = FileLock(self.folder / f"{trial.number}.lock")
                mine.acquire()
            with mine:
                self._try(trial, train, val)
            mine.release(force=True)

    def _try(self, trial: Trial, train: Reader, val: Reader) -> None:
        import optuna

        settings = self.suggest(trial)
        trial.set_user_attr("settings", settings)
        plan = self.planned(settings)
        folder = (
            self.folder / plan.sha256[:16]
        )  # by what is computed: a trial that is taken up again finds its checkpoint
        say(f"trial {trial.number}: {json.dumps(settings)}")

        def watch(step: int, score: float) -> None:
            trial.report(score, step)
            if trial.should_prune():
                raise optuna.TrialPruned

        try:
            places = folder / "model", folder / "live", folder / "checkpoints"
            train_on(plan, self.fingerprint.classes, train, val, *places, watch=watch)
            self.study.tell(trial, read_json(folder / "model" / HISTORY_FILE)["best_score"])
        except optuna.TrialPruned:
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        except SegpipeError as error:
            if type(error) is not SegpipeError:  # not of these settings: of the plan, the data, the machine
                raise
            trial.set_user_attr("diverged", True)
            self.study.tell(trial, 0.0)
        shutil.rmtree(folder, ignore_errors=True)

    def tried(self) -> list[TrialResult]:
        """All trials that ended, the best first; those that were ended early after the others."""
        from optuna.trial import TrialState

        found = self.study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
        table = [TrialResult(t.number, t.user_attrs["settings"], _score(t), _ended(t)) for t in found]
        return sorted(table, key=lambda t: (t.ended != "finished", -t.score, t.number))


def _score(trial: FrozenTrial) -> float:
    value = trial.value if trial.value is not None else list(trial.intermediate_values.values())[-1]
    return float(value)


def _ended(trial: FrozenTrial) -> str:
    if "diverged" in trial.user_attrs:
        return "diverged"
    return "finished" if trial.state.name == "COMPLETE" else "fell behind"
