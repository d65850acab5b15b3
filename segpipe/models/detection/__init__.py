"""Networks that detect instances."""
