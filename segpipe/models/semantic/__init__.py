"""Networks that give each pixel of an image a class."""
