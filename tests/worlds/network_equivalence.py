"""Comparisons of layers and networks that compute the same with other operators."""

import torch


def assert_same_gradients_and_outputs(plain, optimised, images):
    """Check that a network with other operators is equivalent to the plain one.

    In training, the gradients of all parameters agree up to rounding; in evaluation mode, with the same weights, outputs are identical.
    """
    assert list(optimised.state_dict()) == list(plain.state_dict())
    for network in (plain, optimised):
        network.train()(images).square().mean().backward()
    for (key, value), (_, other) in zip(plain.named_parameters(), optimised.named_parameters(), strict=True):
        if value.grad is not None:
            torch.testing.assert_close(other.grad, value.grad, atol=1e-9, rtol=1e-6, msg=key)
    optimised.load_state_dict(plain.state_dict())
    with torch.inference_mode():
        assert torch.equal(optimised.eval()(images), plain.eval()(images))


def output_and_gradients(layer, x, output_gradient):
    """Return the output of a layer and the gradients of its input and parameters, in this order."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = layer(x)
    return [y, *torch.autograd.grad(y, [x, *layer.parameters()], output_gradient.to(y.dtype))]
