"""Networks and classical baselines, under one contract."""
