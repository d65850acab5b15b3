"""Commands that make and show results."""
