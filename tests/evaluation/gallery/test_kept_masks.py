"""Masks that are kept for the gallery."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segpipe.data.shards import ShardReader
from segpipe.evaluation.gallery.kept_masks import KeptMasks
from segpipe.evaluation.gallery.write import write_gallery
from segpipe.evaluation.scores import Scores
from segpipe.evaluation.scoring import score_images
from segpipe.files import sha256_tree
from segpipe.samples import Instances, Prediction, Sample
from tests.worlds.evaluated_workspace import CLASSES, make_segmenter

MASK = np.zeros((4, 5), np.uint8)


def sample(key: str, instances: bool = False) -> Sample:
    return Sample(key, np.zeros((4, 5, 1), np.uint8), MASK, instances=MASK.astype(np.uint16) if instances else None)


def predicted(ids: np.ndarray | None = None) -> Prediction:
    return Prediction(MASK, instances=None if ids is None else Instances.from_map(ids, [1], [1.0]))


def test_masks_are_kept_while_there_is_room() -> None:
    kept = KeptMasks(max_bytes=45)
    for key in "abc":
        kept.add(sample(key), predicted())
    assert [kept.get(key) is not None for key in "abc"] == [True, True, False]
    assert kept.get("a").class_ids is MASK and kept.get("a").instance_ids is None


def test_a_mask_whose_instances_were_not_predicted_is_not_kept() -> None:
    kept, ids = KeptMasks(), np.ones((4, 5), np.uint16)
    kept.add(sample("without", instances=True), predicted())
    kept.add(sample("with", instances=True), predicted(ids))
    assert kept.get("without") is None
    assert kept.get("with").instance_ids.all()


def test_the_gallery_is_the_same_from_kept_masks(reader: ShardReader, tmp_path: Path) -> None:
    segmenter, kept = make_segmenter(0.1), KeptMasks()
    scores = Scores.collect("unet", CLASSES.names, {}, score_images(segmenter, reader, "unet", kept=kept))
    write_gallery(segmenter, reader, scores, tmp_path / "predicted", 3)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("predicted again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmenter, "predict", refuse)
        write_gallery(segmenter, reader, scores, tmp_path / "kept", 3, kept)
    assert sha256_tree(tmp_path / "kept") == sha256_tree(tmp_path / "predicted")
