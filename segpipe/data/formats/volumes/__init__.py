"""Layouts of volumes: NIfTI pairs, nnU-Net, Medical Segmentation Decathlon."""
