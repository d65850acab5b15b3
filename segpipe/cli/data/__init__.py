"""`segpipe data`: import, inspect and export labelled images."""
