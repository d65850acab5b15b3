"""Faster or exportable versions of layers that torch, torchvision or segmentation-models-pytorch provide."""
