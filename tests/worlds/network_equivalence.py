import torch


def assert_same_gradients_and_outputs(plain, ours, images):
    """Gradients of all parameters to rounding, in training; and, with the same weights, the same answers bit by bit in service."""
    assert list(ours.state_dict()) == list(plain.state_dict())
    for network in (plain, ours):
        network.train()(images).square().mean().backward()
    for (key, value), (_, other) in zip(plain.named_parameters(), ours.named_parameters(), strict=True):
        if value.grad is not None:
            torch.testing.assert_close(other.grad, value.grad, atol=1e-9, rtol=1e-6, msg=key)
    ours.load_state_dict(plain.state_dict())
    with torch.inference_mode():
        assert torch.equal(ours.eval()(images), plain.eval()(images))
