"""The description of the images that a model was trained on, and the exact conversion of other images to them."""
