"""The head of region proposals, compared with torchvision's."""

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


def outputs_and_gradients(head, counted, dtype=torch.float64):
    """Outputs, and gradients of levels and parameters, if only `counted` in a thousand output values count."""
    torch.manual_seed(1)
    levels = [torch.randn(2, 8, *size, dtype=dtype).requires_grad_() for size in SIZES]
    outputs = [output for kind in head(levels) for output in kind]
    torch.manual_seed(2)
    loss = sum((output.double() ** 2 * (torch.rand(output.shape) < counted / 1000)).sum() for output in outputs)
    loss.backward()
    return outputs, [leaf.grad for leaf in (*levels, *head.parameters())]


@pytest.mark.parametrize("counted", [0, 5, 60, 1000])
def test_outputs_and_gradients_equal_torchvisions(counted):
    (expected, expected_gradients), (outputs, gradients) = (
        outputs_and_gradients(head.train(), counted) for head in heads()
    )
    assert all(torch.equal(a, b) for a, b in zip(expected, outputs, strict=True))
    for torchvisions, ours in zip(expected_gradients, gradients, strict=True):
        torch.testing.assert_close(ours, torchvisions)
        assert counted == 0 or torchvisions.any() or torchvisions.shape[2:] == SIZES[-1]


def test_mixed_precision_rounds_no_more_than_torch_does():
    exact = outputs_and_gradients(heads()[0].train(), 100)[1]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = [outputs_and_gradients(head.train(), 100, torch.float32)[1] for head in heads(torch.float32)]
    torchvisions, ours = (
        [float((a - b).norm() / b.norm()) for a, b in zip(gradients, exact, strict=True)] for gradients in rounded
    )
    assert all(gradient.dtype == torch.float32 for gradient in rounded[1])
    assert max(torchvisions) > 1e-4, "it is computed in bfloat16"
    assert all(error < 1.5 * other + 1e-3 for error, other in zip(ours, torchvisions, strict=True))


def test_the_backward_pass_runs_only_at_pixels_that_are_learned_from(monkeypatch):
    counts, outputs_at = [], proposal_head._outputs_at
    monkeypatch.setattr(
        proposal_head,
        "_outputs_at",
        lambda neighbours, *rest: counts.append(len(neighbours)) or outputs_at(neighbours, *rest),
    )
    head, level = heads()[1].train(), torch.randn(2, 8, 20, 20, dtype=torch.float64)
    logits, boxes = head([level])
    (logits[0][1, 2, 7, 3] + boxes[0][1, :, 7, 3].sum() + logits[0][0, 0, 19, 0]).backward()
    assert counts == [2]
    assert sum(p.grad.abs().sum() > 0 for p in head.parameters()) == 6


def test_in_inference_it_is_torchvisions(monkeypatch):
    monkeypatch.setattr(proposal_head, "_Head", None)
    plain, ours = heads()
    level = torch.randn(2, 8, 12, 9, dtype=torch.float64)
    with torch.inference_mode():
        for training in (True, False):
            expected, outputs = plain.train(training)([level]), ours.train(training)([level])
            assert torch.equal(expected[0][0], outputs[0][0]) and torch.equal(expected[1][0], outputs[1][0])
