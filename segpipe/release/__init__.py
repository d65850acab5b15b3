"""From a winner to a version: bundle, Bento, blessing, registry."""
