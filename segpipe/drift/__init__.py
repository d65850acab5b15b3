"""Whether images look like those that the model in production was trained on."""
