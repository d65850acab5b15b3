"""Training samples: crops, augmentation and targets."""
