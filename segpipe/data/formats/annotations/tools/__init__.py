"""Exports of annotation tools: CVAT, Supervisely, VIA, and GeoJSON in pixels as QuPath writes it."""
