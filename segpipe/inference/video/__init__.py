"""A video, frame by frame: read, segmented, smoothed over time, drawn and written, each in a thread of its own."""
