"""From an image to class ids: preprocessing, network, postprocessing."""
