"""Choosing how a candidate is trained, from its settings, the data and speeds measured on this machine."""
