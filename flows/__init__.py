"""Prefect flows: when, where and how often; what a stage does is the business of segpipe."""
