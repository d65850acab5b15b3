"""What a model knows of its training images, and the exact conversion of other images to them."""
