"""Gates: what the winner must prove before it may be released."""
