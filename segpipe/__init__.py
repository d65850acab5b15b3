"""segpipe: from a DVC-versioned folder of labelled images to a gated, packaged, served segmentation model, and back."""

__version__ = "0.1.0"
