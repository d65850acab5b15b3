"""`segpipe compare`: two models on the same test images, as numbers, as one sentence and as a page."""
