import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from segpipe.training.checkpoint import TrainingState, json_differences, load_checkpoint, save_checkpoint
from segpipe.training.step import build_stepper
from tests.worlds.trainings import tiny_plan

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(0, 3, (2, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.fixture
def trained():
    plan = tiny_plan({"dropout": 0.2})
    stepper = build_stepper(plan)
    for number in range(3):
        stepper.step(number, IMAGES, LABELS, plan.seed)
    return plan, stepper


def state_of(stepper):
    """All tensors of a stepper: weights, running average and state of the optimiser."""
    state = {f"average.{k}": v for k, v in stepper.average.state_dict().items()} | stepper.network.state_dict()
    for name, parameter in stepper.network.named_parameters():
        state |= {f"{name}:{k}": torch.as_tensor(v) for k, v in stepper.optimizer.state[parameter].items()}
    return {name: value.clone() for name, value in state.items()}


def test_a_loaded_checkpoint_continues_with_the_same_steps(tmp_path, trained):
    plan, stepper = trained
    best = {name: value.clone() for name, value in stepper.network.state_dict().items()}
    save_checkpoint(
        tmp_path, plan, stepper, best, TrainingState(step=3, pending=[0.1, 1 / 3], best_score=0.25, accumulate=2)
    )
    other = build_stepper(plan)
    loaded, state = load_checkpoint(tmp_path, plan, other)
    assert state == TrainingState(step=3, pending=[0.1, 1 / 3], best_score=0.25, accumulate=2)
    assert loaded.keys() == best.keys() and all(torch.equal(loaded[k], best[k]) for k in best)
    for number in (3, 4):
        for s in (stepper, other):
            s.step(number, IMAGES, LABELS, plan.seed)
    one, two = state_of(stepper), state_of(other)
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
        lambda p: torch.optim.SGD(p, 0.1),
        lambda p: torch.optim.NAdam(p, 0.01),
        lambda p: torch.optim.RMSprop(p, 0.01, centered=True),
        lambda p: torch.optim.ASGD(p, 0.1),
    ],
    ids=["momentum", "sgd", "nadam", "rmsprop", "asgd"],
)
def test_the_state_of_any_optimiser_is_kept(tmp_path, make):
    plan = tiny_plan()

    def with_optimizer():
        stepper = build_stepper(plan)
        stepper.optimizer = make(stepper.network.parameters())
        return stepper

    def step(stepper, number):
        torch.manual_seed(number)
        stepper.network(IMAGES).square().mean().backward()
        stepper.optimizer.step()
        stepper.optimizer.zero_grad()

    one, two = with_optimizer(), with_optimizer()
    for number in range(3):
        step(one, number)
    save_checkpoint(tmp_path, plan, one, {}, TrainingState(step=3))
    load_checkpoint(tmp_path, plan, two)
    for number in range(3, 6):
        step(one, number)
        step(two, number)
    state = two.network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in one.network.state_dict().items())


def test_two_are_kept_and_a_partly_written_one_is_removed(tmp_path, trained):
    plan, stepper = trained
    for step in (1, 2, 3, 10):
        save_checkpoint(tmp_path, plan, stepper, {}, TrainingState(step=step))
    (tmp_path / ".000000011.safetensors.x7.safetensors").write_bytes(b"partial")
    assert load_checkpoint(tmp_path, plan, stepper)[1].step == 10
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000000003.safetensors", "000000010.safetensors"]


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-17] ^= 4  # in the last tensor: the file still parses
    path.write_bytes(content)


def change_the_step(path):
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    save_file(tensors, path, metadata | {"segpipe": metadata["segpipe"].replace('"pending": []', '"pending": [1.0]')})


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_bytes(bytes(path.stat().st_size)), "cannot be read"),
        (flip_a_bit, "checksum"),
        (change_the_step, "checksum"),
    ],
    ids=["truncated", "empty", "zeros", "one bit", "the state"],
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, trained, capfd, damage, reason):
    plan, stepper = trained
    save_checkpoint(tmp_path, plan, stepper, {}, TrainingState(step=1))
    before = state_of(stepper)
    stepper.step(3, IMAGES, LABELS, 0)
    save_checkpoint(tmp_path, plan, stepper, {}, TrainingState(step=2))
    damage(tmp_path / "000000002.safetensors")
    other = build_stepper(plan)
    assert load_checkpoint(tmp_path, plan, other)[1].step == 1
    error = capfd.readouterr().err
    assert "000000002.safetensors is removed" in error and reason in error
    assert all(torch.equal(value, before[name]) for name, value in state_of(other).items())
    damage(tmp_path / "000000001.safetensors")
    assert load_checkpoint(tmp_path, plan, other) is None and not list(tmp_path.iterdir())


def test_a_changed_plan_starts_from_the_beginning_and_names_the_changes(tmp_path, trained, capfd):
    plan, stepper = trained
    for step in (499, 500):
        save_checkpoint(tmp_path, plan, stepper, {}, TrainingState(step=step))
    recipe = plan.recipe.model_copy(update={"learning_rate": 1e-3, "class_weights": [1.0, 1.0, 1.0]})
    other = plan.model_copy(update={"recipe": recipe})
    assert load_checkpoint(tmp_path, other, build_stepper(other)) is None
    output = capfd.readouterr().err
    assert "recipe.learning_rate (0.002, now 0.001), recipe.class_weights" in output
    assert "starts from the beginning" in output
    assert output.count("note:") == 1, "the other checkpoint is removed without a message"
    save_checkpoint(tmp_path, other, stepper, {}, TrainingState(step=1))
    assert load_checkpoint(tmp_path, other, build_stepper(other))[1].step == 1, (
        "checkpoints of the old training do not interfere"
    )


def test_measurements_in_the_plan_do_not_matter(tmp_path, trained):
    plan, stepper = trained
    save_checkpoint(tmp_path, plan, stepper, {}, TrainingState(step=3))
    execution = plan.execution.model_copy(update={"ms_per_step": 7.0})
    again = plan.model_copy(update={"execution": execution, "reasons": {"steps": "other words"}})
    assert load_checkpoint(tmp_path, again, stepper)[1].step == 3


def test_differences_by_hand():
    assert json_differences({"a": {"b": 1, "c": [1]}, "d": 0}, {"a": {"b": 2, "c": [1, 2]}, "d": 0}) == [
        "a.b (1, now 2)",
        "a.c",
    ]
    assert json_differences({"a": 1}, {"b": None}) == ["a (1, now null)"]
    assert json_differences({"x": "y" * 50}, {"x": "z"}) == [f'x ("{"y" * 11}..., now "z")']
    assert json_differences({"x": np.float64(0.5)}, {"x": 0.5}) == []
