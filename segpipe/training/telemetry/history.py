"""history.json of a trained model: models/NAME/history.json."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from segpipe.errors import DataError
from segpipe.json_models import read_model

HISTORY_FILE = "history.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class FoldScores(_Part):
    """The score of each member of an ensemble on the fold that it was not trained on, with mean and standard deviation."""

    scores: tuple[float, ...] = ()
    mean: float
    sd: float


class TrainingHistory(_Part):
    """The scores on the validation split that training measured (mean IoU over classes). The curves in the file are not read."""

    best_score: float | None = None
    """The score of the best weights."""
    finished_score: float | None = None
    """The score of the model as it serves, with its postprocessing; None if that is the same as `best_score`."""
    val_images: int | None = None
    """The number of validation images that both scores were measured on, if a short budget left no time for all; else None."""
    folds: FoldScores | None = None
    """The scores of the members of an ensemble; None for a single model."""

    @classmethod
    def read(cls, model: Path) -> TrainingHistory:
        """Read the history of a model.

        Args:
            model: the folder of the trained model, models/NAME.

        Raises:
            DataError: the file is missing or not valid.
        """
        fix = f"dvc repro -f train@{model.name}"
        return read_model(model / HISTORY_FILE, cls, error_type=DataError, kind="training history", fix=fix)

    @property
    def val_score(self) -> float | None:
        """The score of the model as it serves, on all validation images; None if it is known for some of them only."""
        if self.val_images is not None:
            return None
        return self.best_score if self.finished_score is None else self.finished_score
