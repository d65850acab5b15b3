"""Tests of `segpipe.data.images.formats`."""
