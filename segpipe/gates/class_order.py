"""A model with its classes in another order, so that models of the same classes can be compared class by class."""

from __future__ import annotations

from collections.abc import Sequence

from segpipe.inference.cleaning import Cleaning
from segpipe.inference.engines.engine import Batch, Engine
from segpipe.inference.segmenter import Segmenter


class ReorderedEngine:
    """An engine whose class channels are in another order.

    Args:
        engine: the engine.
        channels: for each new channel, the channel of the engine.
    """

    def __init__(self, engine: Engine, channels: Sequence[int]) -> None:
        self.name, self._engine, self._channels = engine.name, engine, list(channels)

    def __call__(self, batch: Batch) -> Batch:
        """Return the logits (N, channels, ...) of a batch, in the new order."""
        return self._engine(batch)[:, self._channels]


def with_class_order(segmenter: Segmenter, names: Sequence[str]) -> Segmenter | None:
    """Return the same model with its classes in another order: its class ids are indices of `names`.

    Args:
        segmenter: the model.
        names: the names of its classes in the new order.

    Returns:
        The model; None if the names are not those of its classes, or if its kind does not allow another order: a detector, and overlapping
        classes with another background.
    """
    spec = segmenter.spec
    if spec.classes.names == list(names):
        return segmenter
    if sorted(spec.classes.names) != sorted(names) or spec.task == "instance":
        return None
    if spec.classes.overlapping and spec.classes.names[0] != names[0]:
        return None
    if spec.postprocess is not None:
        return None
    order = [spec.classes.names.index(name) for name in names]
    channels = [*order, *range(len(order), spec.outputs.channels)]
    if spec.classes.overlapping and spec.outputs.channels != len(order):
        return None
    classes = spec.classes.model_copy(update={"classes": tuple(spec.classes.classes[index] for index in order)})
    changed = spec.model_copy(update={"classes": classes, "cleaning": _reordered(spec.cleaning, order)})
    return Segmenter(changed, ReorderedEngine(segmenter.engine, channels))


def _reordered(cleaning: Cleaning | None, order: Sequence[int]) -> Cleaning | None:
    """Return a cleaning with its numbers by class in another order; a threshold between two classes becomes two shifts."""
    if cleaning is None:
        return None
    offsets, least = cleaning.logit_offsets, cleaning.least
    return Cleaning(
        shifts=tuple(offsets[index] for index in order) if offsets else (),
        least=tuple(least[index] for index in order) if least else (),
    )
