"""The head of region proposals, against torchvision's own."""

import pytest
import torch
from torchvision.models.detection.rpn import RPNHead

from segpipe.ops import proposal_head
from segpipe.ops.proposal_head import SparseGradientRPNHead

SIZES = [(12, 9), (6, 5), (1, 2)]


def heads(dtype=torch.float64):
    torch.manual_seed(0)
    plain, ours = RPNHead(8, 3), SparseGradientRPNHead(8, 3)
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours.load_state_dict(plain.state_dict())
    return plain.to(dtype), ours.to(dtype)


def learned(head, taught, dtype=torch.float64):
    """Answers, and gradients of levels and parameters, where of each level's two outputs only `taught` in a thousand values count."""
    torch.manual_seed(1)
    levels = [torch.randn(2, 8, *size, dtype=dtype).requires_grad_() for size in SIZES]
    found = [one for outputs in head(levels) for one in outputs]
    torch.manual_seed(2)
    loss = sum((one.double() ** 2 * (torch.rand(one.shape) < taught / 1000)).sum() for one in found)
    loss.backward()
    return found, [leaf.grad for leaf in (*levels, *head.parameters())]


@pytest.mark.parametrize("taught", [0, 5, 60, 1000])
def test_answers_and_gradients_are_torchvisions(taught):
    (answers, gradients), (own_answers, own_gradients) = (learned(head.train(), taught) for head in heads())
    assert all(torch.equal(a, b) for a, b in zip(answers, own_answers, strict=True))
    for theirs, ours in zip(gradients, own_gradients, strict=True):
        torch.testing.assert_close(ours, theirs)
        assert taught == 0 or theirs.any() or theirs.shape[2:] == SIZES[-1]


def test_mixed_precision_rounds_no_more_than_torch_does():
    exact = learned(heads()[0].train(), 100)[1]
    with torch.autocast("cpu", torch.bfloat16):
        found = [learned(head.train(), 100, torch.float32)[1] for head in heads(torch.float32)]
    theirs, ours = ([float((a - b).norm() / b.norm()) for a, b in zip(one, exact, strict=True)] for one in found)
    assert all(one.dtype == torch.float32 for one in found[1])
    assert max(theirs) > 1e-4, "bfloat16 it is"
    assert all(mine < 1.5 * other + 1e-3 for mine, other in zip(ours, theirs, strict=True))


def test_it_runs_back_where_something_is_learned_alone(monkeypatch):
    seen, of_torch = [], proposal_head._at_places
    monkeypatch.setattr(
        proposal_head, "_at_places", lambda around, *rest: seen.append(len(around)) or of_torch(around, *rest)
    )
    head, level = heads()[1].train(), torch.randn(2, 8, 20, 20, dtype=torch.float64)
    logits, boxes = head([level])
    (logits[0][1, 2, 7, 3] + boxes[0][1, :, 7, 3].sum() + logits[0][0, 0, 19, 0]).backward()
    assert seen == [2]
    assert sum(p.grad.abs().sum() > 0 for p in head.parameters()) == 6


def test_in_service_it_is_torchvisions(monkeypatch):
    monkeypatch.setattr(proposal_head, "_Head", None)
    plain, ours = heads()
    level = torch.randn(2, 8, 12, 9, dtype=torch.float64)
    with torch.inference_mode():
        for training in (True, False):
            answers, own = plain.train(training)([level]), ours.train(training)([level])
            assert torch.equal(answers[0][0], own[0][0]) and torch.equal(answers[1][0], own[1][0])
