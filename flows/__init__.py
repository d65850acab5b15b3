"""Prefect flows. They decide when, where and how often something runs; segpipe decides what a stage does."""
