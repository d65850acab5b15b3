"""Dropout and stochastic depth in several processes, which draw noise for the images of all."""

import pytest
import torch
from timm.layers import DropPath
from torch import nn
from torchvision.ops import StochasticDepth

from segpipe.training.distributed import process_group, shared_dropout
from segpipe.training.distributed.shared_dropout import images_on_all_ranks, share_dropout
from segpipe.training.sampling.batch_parts import split_batch
from segpipe.training.sampling.crops import batches
from tests.worlds.tiny_training import make_recipe

LAYERS = [nn.Dropout(0.3), nn.Dropout2d(0.3), DropPath(0.3), StochasticDepth(0.3, "row")]


@pytest.fixture
def as_process(monkeypatch):
    def become(number, count):
        for module in (process_group, shared_dropout):
            monkeypatch.setattr(module, "world_size", lambda: count)
            monkeypatch.setattr(module, "rank", lambda: number)

    return become


def output_of(layers, x):
    """The output of these layers in sequence, by a new network, from a fixed seed."""
    network = nn.Sequential(*(type(layer)(*arguments_of(layer)) for layer in layers))
    share_dropout(network)(5)
    torch.manual_seed(7)
    return network(x)


def arguments_of(layer):
    if isinstance(layer, StochasticDepth):
        return layer.p, layer.mode
    return (getattr(layer, "p", None) or layer.drop_prob,)


@pytest.mark.parametrize(
    "layers", [[layer] for layer in LAYERS] + [LAYERS], ids=[type(m).__name__ for m in LAYERS] + ["all"]
)
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_each_process_draws_what_one_would_have_drawn_for_its_images(as_process, layers, memory):
    x = torch.randn(5, 6, 8, 7).contiguous(memory_format=memory)
    whole = output_of(layers, x)
    assert (whole == 0).any() and (whole != 0).any()
    for number in range(3):
        as_process(number, 3)
        share = x[number::3].contiguous(memory_format=memory)
        torch.testing.assert_close(output_of(layers, share), whole[number::3])


def test_in_a_single_process_nothing_changes():
    network = nn.Sequential(nn.Dropout(0.5))
    share_dropout(network)(4)
    assert type(network[0]) is nn.Dropout


def test_in_inference_nothing_is_drawn(as_process):
    as_process(1, 2)
    network, x = nn.Sequential(nn.Dropout(0.5)), torch.randn(2, 3)
    share_dropout(network)
    assert torch.equal(network.eval()(x), x)


@pytest.mark.parametrize(
    ("batch", "parts", "count"), [(4, 1, 2), (5, 1, 2), (7, 2, 3), (8, 2, 3), (11, 2, 4), (12, 3, 4)]
)
def test_the_rows_of_all_processes_are_the_images_of_a_part(as_process, batch, parts, count):
    """Counted on the batches of the loader."""
    recipe, rows = make_recipe(batch=batch), {}
    for number in range(count):
        as_process(number, count)
        images, labels = next(batches(Positions(), recipe, 0, 0, 1, rank=number, world_size=count))
        for index, (part, _, _) in enumerate(split_batch(images, labels, parts)):
            all_rows = range(images_on_all_ranks(batch, parts, index))
            own_rows = list(all_rows)[number::count]
            assert len(own_rows) == len(part)
            rows.setdefault((index, len(all_rows)), []).extend(own_rows)
    assert len(rows) == parts, "all processes agree on the numbers"
    assert all(sorted(drawn) == list(range(length)) for (_, length), drawn in rows.items())


class Positions:
    def __getitem__(self, position):
        return torch.zeros(1), position
