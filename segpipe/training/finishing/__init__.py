"""Choices made on the validation split after the last step: postprocessing of classes and instances."""
