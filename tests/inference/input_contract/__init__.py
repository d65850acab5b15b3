"""Tests of `segpipe.inference.input_contract`."""
