"""Commands that compute and show results."""
