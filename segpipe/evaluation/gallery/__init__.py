"""Example pictures of images, labels, predictions and errors."""
