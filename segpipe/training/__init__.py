"""Training of networks and classical models by a pinned plan."""
