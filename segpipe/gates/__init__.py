"""Gates: the requirements that the winner must meet before it may be released."""
