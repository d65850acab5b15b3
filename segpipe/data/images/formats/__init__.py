"""Formats of images and volumes besides the usual ones, each of them bounded before it is decoded. Some need a package of an extra."""
