"""The speed of training on this machine: which settings are fastest, how long a step takes, and what is known from earlier measurements."""
