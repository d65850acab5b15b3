"""An assertion that two networks are equivalent."""

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
