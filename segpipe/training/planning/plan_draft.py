"""The plan of a candidate while it is being made: settings and data, the choices so far, and the reason for each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from segpipe.training.plan import ClassicalPlan, Execution, NetworkPlan, Recipe, RecipePlan

if TYPE_CHECKING:
    from pydantic import BaseModel

    from segpipe.config import TrainParams
    from segpipe.data.manifest.fingerprint import Fingerprint
    from segpipe.models.registry import Family
    from segpipe.training.sampling.crops import Reader


@dataclass
class PlanDraft:
    """The settings and data from which planning chooses, and the choices with their reasons.

    The functions of this room read what they need and record what they choose. A choice becomes a field of the plan by `choose`;
    its reason, in words, is recorded by `explain`. A later reason for the same choice replaces the earlier one.
    """

    settings: TrainParams
    """The candidate's `train` settings. Planning fills in those that the family decides."""
    family: Family
    config: BaseModel
    """The family's own settings."""
    fingerprint: Fingerprint
    train: Reader
    val: Reader
    started: float
    """The moment when planning began (`time.perf_counter`), because a wall-clock budget pays for planning too."""
    fields: dict[str, Any] = field(default_factory=dict)
    """Fields of the plan, by name, as far as they have been chosen."""
    reasons: dict[str, str] = field(default_factory=dict)
    reuse_speeds: bool = True
    """Whether speeds that earlier plans measured on this machine are used (`segpipe.training.speed.speed_cache`)."""
    start_up_s: float = 0.0
    """Seconds that planning took for imports, the network and its first stepper: training takes them as well."""

    @contextmanager
    def counted_as_start_up(self) -> Iterator[None]:
        """Count the time within this context as a part of the start of a training."""
        started = time.perf_counter()
        yield
        self.start_up_s += time.perf_counter() - started

    def choose(self, **fields: Any) -> None:
        """Set fields of the plan."""
        self.fields |= fields

    def explain(self, choice: str, reason: str) -> None:
        """Record the reason for a choice."""
        self.reasons[choice] = reason

    @property
    def world_size(self) -> int:
        """The number of processes that share each batch, on all machines."""
        return self.settings.devices * self.settings.num_nodes

    @property
    def plan(self) -> RecipePlan:
        """The plan of a network, as far as it does not depend on measurements."""
        return RecipePlan(**self._fields, reasons=self.reasons)

    def network_plan(self, recipe: Recipe, execution: Execution) -> NetworkPlan:
        """Return the complete plan of a network. recipe: with everything that is counted in steps."""
        return NetworkPlan(**self._fields | {"recipe": recipe}, execution=execution, reasons=self.reasons)

    def classical_plan(self) -> ClassicalPlan:
        """Return the complete plan of a classical model."""
        return ClassicalPlan(**self._fields, reasons=self.reasons)

    @property
    def _fields(self) -> dict[str, Any]:
        return self.fields | {"options": self.config.model_dump(mode="json")}
