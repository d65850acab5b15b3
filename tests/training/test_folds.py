"""Folds: the fold of each image, the members that see it, and what cannot be divided."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segpipe.config import Candidate, Params, TrainParams
from segpipe.data.shards import ShardReader, write_shards
from segpipe.data.splits import FOLDS_FILE
from segpipe.errors import ConfigError
from segpipe.files import write_json
from segpipe.models.registry import get_family
from segpipe.samples import Sample
from segpipe.training.folds import SampleSubset, check_folds, choose_folds, describe_folds, make_folds, member_plan
from segpipe.training.plan import Folds, NetworkPlan
from segpipe.training.planning import planner
from segpipe.training.planning.budget import MEMBER_START_S, MIN_STEPS, count_steps
from segpipe.training.planning.planner import make_plan
from tests.worlds.readers import MemoryReader
from tests.worlds.tiny_training import draw, fingerprint_of
from tests.worlds.tiny_training import make_plan as plan_of


def params_of(split=None, **train):
    return Params.model_validate(
        {
            "split": split or {},
            "train": train,
            "candidates": {"unet": {"family": "unet"}, "kmeans": {"family": "kmeans"}},
        }
    )


def samples(first, count, group=None, copy_of=None):
    for i in range(first, first + count):
        drawn = draw(copy_of if copy_of is not None else i, 40, 40)
        yield Sample(f"s{i}", drawn.image, drawn.labels, group=group)


@pytest.fixture
def shards(tmp_path):
    """Ten images of train and six of val, with four images of a group and two copies of one image in both splits."""
    train = [*samples(0, 7), *samples(7, 2, group="a"), *samples(9, 1, copy_of=99)]
    write_shards(tmp_path, "train", train, 3)
    write_shards(tmp_path, "val", [*samples(20, 3), *samples(23, 2, group="a"), *samples(25, 1, copy_of=99)], 3)
    write_shards(tmp_path, "test", samples(30, 3), 3)
    return tmp_path


def fold_images(shards, count=3, how="groups", seed=0):
    readers = ShardReader(shards, "train"), ShardReader(shards, "val")
    return make_folds(Folds(count=count, dealt=how), seed, *readers, shards)


def keys(samples):
    return {samples[i].key for i in range(len(samples))}


def test_a_subset_has_samples_of_several_readers():
    readers = [MemoryReader([draw(i) for i in range(3)]), MemoryReader([draw(i) for i in range(10, 14)])]
    subset = SampleSubset(readers, [6, 0, 3])
    assert [subset[i].key for i in range(len(subset))] == ["s13", "s0", "s10"]
    counts = [[(subset[i].labels == c).sum() for c in range(3)] for i in range(3)]
    assert np.array_equal(subset.class_pixels, counts)
    assert hash(subset) != hash(SampleSubset(readers, [6, 0, 3])), "caches of crops distinguish readers by identity"
    with pytest.raises(IndexError):
        subset[3]


def test_every_image_of_train_and_val_is_in_one_fold_and_test_in_none(shards):
    result = fold_images(shards)
    all_keys = keys(ShardReader(shards, "train")) | keys(ShardReader(shards, "val"))
    in_fold = [keys(result.only_fold(fold)) for fold in range(3)]
    assert sum(map(len, in_fold)) == len(all_keys) == 16
    assert set().union(*in_fold) == all_keys == set(result.fold_by_key)
    for fold in range(3):
        assert keys(result.without_fold(fold)) == all_keys - in_fold[fold]
        assert all(result.fold_by_key[key] == fold for key in in_fold[fold])
    assert len({result.fold_by_key[key] for key in ("s7", "s8", "s23", "s24")}) == 1, "a group"
    assert result.fold_by_key["s9"] == result.fold_by_key["s25"], "copies"
    assert fold_images(shards).fold_by_key == result.fold_by_key
    assert fold_images(shards, seed=1).fold_by_key != result.fold_by_key


def test_split_folds_are_used_if_they_are_set(shards):
    assert choose_folds(3, params_of(), shards).dealt == "groups"
    assert choose_folds(3, params_of({"method": "ranges"}), shards).dealt == "blocks"
    fold_by_key = {key: i % 2 for i, key in enumerate(sorted(fold_images(shards).fold_by_key))}
    write_json(shards / FOLDS_FILE, fold_by_key)
    assert choose_folds(2, params_of(), shards) == Folds(count=2, dealt="split")
    assert fold_images(shards, 2, "split").fold_by_key == fold_by_key
    with pytest.raises(ConfigError, match=r"train\.folds.*found 3, and folds \[0, 1\].*same number"):
        choose_folds(3, params_of(), shards)


@pytest.mark.parametrize("how", ["blocks", "split"])
def test_slices_next_to_a_fold_train_no_member_that_it_judges(tmp_path, how):
    write_shards(tmp_path, "train", samples(0, 12, group="stack (train)"), 3)
    write_shards(tmp_path, "val", samples(15, 6, group="stack (val)"), 3)
    if how == "split":
        write_json(tmp_path / FOLDS_FILE, {f"s{i}": i // 7 for i in range(21)})
    folds = choose_folds(3, params_of({"method": "ranges", "gap": 2}), tmp_path)
    assert folds == Folds(count=3, dealt=how, gap=2)
    result = make_folds(folds, 0, ShardReader(tmp_path, "train"), ShardReader(tmp_path, "val"), tmp_path)
    position = {key: int(key[1:]) for key in result.fold_by_key}
    for fold in range(3):
        in_fold, seen = keys(result.only_fold(fold)), keys(result.without_fold(fold))
        assert min(abs(position[a] - position[b]) for a in in_fold for b in seen) > 2
        others = position.keys() - in_fold
        touching = {key for key in others if min(abs(position[key] - position[b]) for b in in_fold) <= 2}
        assert seen == others - touching
    assert set().union(*(keys(result.only_fold(fold)) for fold in range(3))) == position.keys(), "all are judged"
    assert "without the 2 images on either side" in describe_folds(folds, result, TrainParams())
    wide = Folds(count=3, dealt="blocks", gap=20)
    with pytest.raises(ConfigError, match=r"split.gap: .*no images to train on without fold \d.*reduce it"):
        make_folds(wide, 0, ShardReader(tmp_path, "train"), ShardReader(tmp_path, "val"), tmp_path)


def test_members_that_cannot_be_averaged_or_judged_are_refused():
    check_folds(Candidate(family="unet", encoder_weights="auto"), get_family("unet"))
    with pytest.raises(ConfigError, match=r"mask_rcnn.*train: \{folds: null\}"):
        check_folds(Candidate(family="mask_rcnn"), get_family("mask_rcnn"))
    with pytest.raises(ConfigError, match="has learned from the images of all folds"):
        check_folds(Candidate(family="unet", encoder_weights="segmenter@v0.1.0"), get_family("unet"))


def test_a_plan_with_folds_is_that_of_its_first_member(shards, monkeypatch):
    planned = {}

    def plan_on(name, params, fingerprint, train, val, *_):
        planned.update(train=keys(train), val=keys(val))
        return plan_of()

    monkeypatch.setattr(planner, "plan_on", plan_on)
    fingerprint = fingerprint_of(MemoryReader(list(ShardReader(shards, "train"))))
    plan = make_plan("unet", params_of(folds=3, budget="60 steps"), fingerprint, shards)
    expected = fold_images(shards)
    assert plan.folds == Folds(count=3, dealt="groups")
    assert planned["val"] == keys(expected.only_fold(0)) and planned["train"] == keys(expected.without_fold(0))
    reason = plan.reasons["folds"]
    assert "3 members" in reason and "60 steps" in reason and "groups whole" in reason
    assert NetworkPlan.model_validate_json(plan.model_dump_json()) == plan
    make_plan("kmeans", params_of(folds=3), fingerprint, shards)
    assert planned["val"] == keys(ShardReader(shards, "val")), "a classical family has no members"


def test_a_plan_without_folds_keeps_its_identity():
    plan = plan_of()
    assert "folds" not in plan.exact and "folds" not in plan.model_dump_json()
    folds = plan.model_copy(update={"folds": Folds(count=3, dealt="groups")})
    assert folds.sha256 != plan.sha256


def test_members_differ_in_their_seed_and_choose_nothing_for_themselves():
    plan = plan_of(cleaning="auto", tta="mirror").model_copy(
        update={"folds": Folds(count=3, dealt="groups"), "postprocess": "watershed"}
    )
    members = [member_plan(plan, fold) for fold in range(3)]
    assert len({m.seed for m in members}) == 3 and len({m.sha256 for m in members}) == 3
    assert all(m.recipe.cleaning == "none" and m.recipe.tta == "none" and m.postprocess is None for m in members)
    assert all(m.folds is None and m.recipe.steps == plan.recipe.steps for m in members)
    other = plan.model_copy(update={"seed": plan.seed + 1})
    assert not {m.seed for m in members} & {member_plan(other, fold).seed for fold in range(3)}


def test_blocks_are_described(shards):
    folds = Folds(count=2, dealt="blocks")
    description = describe_folds(folds, fold_images(shards, 2, "blocks"), TrainParams(budget="10m"))
    assert "8 images, in blocks of each stack" in description


@given(st.floats(60, 86_400), st.floats(1, 5000), st.floats(1, 60_000), st.integers(2, 20), st.floats(0, 100))
def test_members_share_a_budget(seconds, ms_step, ms_val, members, overhead_s):
    assert count_steps("steps", 60, 8, 2, ms_step, ms_val, overhead_s, members)[0] == max(1, round(60 / members))
    assert count_steps("epochs", 10, 8, 2, ms_step, ms_val, overhead_s, members)[0] == max(1, round(40 / members))
    once = overhead_s + (members - 1) * MEMBER_START_S
    try:
        steps, validations = count_steps("seconds", seconds, 8, 2, ms_step, ms_val, overhead_s, members)
    except ConfigError:
        assert once + members * (MIN_STEPS * ms_step + ms_val) / 1000 > 0.98 * seconds
        return
    spent = once + members * (steps * ms_step + validations * ms_val) / 1000
    assert 0.9 * (seconds - once) - members * (ms_step + ms_val) / 1000 < spent - once <= seconds - once + 1e-6
