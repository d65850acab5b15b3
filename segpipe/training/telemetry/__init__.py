"""Reports of a running training: curves, pace, the time of each part of a step."""
