"""Segment a video frame by frame: read, segment, smooth over time, draw and write, in three threads."""
