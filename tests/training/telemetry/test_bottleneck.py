import pytest

from segpipe.training.sampling.crops import batches
from segpipe.training.step import build_stepper
from segpipe.training.tasks import samples_of
from segpipe.training.telemetry import bottleneck
from tests.worlds.readers import MemoryReader
from tests.worlds.tiny_training import draw
from tests.worlds.trainings import tiny_plan


@pytest.mark.parametrize("accumulate", [1, 2])
def test_parts_of_a_step_add_up_to_the_loop(accumulate):
    plan, reader = (
        tiny_plan(batch=4, accumulate=accumulate, augment="strong"),
        MemoryReader([draw(i) for i in range(4)]),
    )
    stepper, full = build_stepper(plan), samples_of(reader, plan)
    off = plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"augment": "off"})})
    images, labels = next(batches(full, plan.recipe, 0, 0, 1))
    parts = bottleneck.step_parts(stepper, images, labels, 0, samples_of(reader, off), full, ms_loop=10_000.0)
    assert list(parts) == ["loader", "augmentation", "forward", "backward", "optimiser"]
    assert sum(parts.values()) == pytest.approx(10_000.0)
    assert min(parts.values()) >= 0
    assert parts["augmentation"] > parts["loader"], "for crops in memory, augmentation takes nearly all of the time"
    tight = bottleneck.step_parts(stepper, images, labels, 0, samples_of(reader, off), full, ms_loop=0.01)
    assert sum(tight.values()) == pytest.approx(0.01)
    assert tight["loader"] == tight["augmentation"] == 0
    assert all(p.grad is None for p in stepper.network.parameters()), "measuring leaves no gradient"


def test_clock_divides_the_time_of_steps_as_the_plan_measured_it(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(bottleneck.time, "perf_counter", lambda: now[0])
    clock = bottleneck.TrainingClock()
    for name, seconds in (("validation", 1.0), ("checkpoints", 0.5), ("validation", 0.5)):
        with clock.part(name):
            now[0] += seconds
    now[0] += 6.0
    rows = {row["part"]: row for row in clock.table(10, {"forward": 1.0, "backward": 2.0})}
    assert {name: row["share"] for name, row in rows.items()} == {
        "forward": 0.25,
        "backward": 0.5,
        "validation": 0.1875,
        "checkpoints": 0.0625,
    }
    assert rows["backward"]["ms"] == 400.0
    assert clock.table(10, {})[0] == {"part": "steps", "share": 0.75, "ms": 600.0}
