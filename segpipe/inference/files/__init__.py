"""Image files in; masks, overlays and instance tables out."""
