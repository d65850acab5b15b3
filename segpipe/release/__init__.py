"""From a winner to a released version: bundle, Bento, blessing, registry."""
