"""Optimisers, learning-rate schedules and frozen encoders."""
