"""Robustness: the loss of a model on images with noise, blur, compression and other corruptions."""
