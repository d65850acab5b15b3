"""Networks and classical models, grouped in families."""
