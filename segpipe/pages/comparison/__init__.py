"""`segpipe compare`: two models on the same test images, in numbers, pictures and one page."""
