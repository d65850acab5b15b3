"""Inference: from an image to class ids and instances, by preprocessing, network and postprocessing."""
