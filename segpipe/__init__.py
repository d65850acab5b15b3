"""segpipe turns a DVC-versioned folder of labelled images into a gated, packaged, served segmentation model."""

__version__ = "0.1.0"
