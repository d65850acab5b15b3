"""The HTTP endpoint: the server, its API and its page, and the live model."""
