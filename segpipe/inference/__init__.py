"""From an image to class ids and instances: preprocessing, network, postprocessing."""
