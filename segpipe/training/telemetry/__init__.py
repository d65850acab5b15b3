"""What a training reports about itself: curves, pace, the time of each part of a step."""
