"""Run the stages of the pipeline: their order, one process per stage, progress, a log, and an estimate of the time left."""
