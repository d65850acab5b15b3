"""Layouts in which mask files hold the labels."""
