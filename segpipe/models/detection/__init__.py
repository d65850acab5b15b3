"""Networks that detect instances and segment a mask for each."""
