"""Networks and classical models, by family."""
