"""Run the stages of the pipeline: in which order, each as a process, with progress, a log and an estimate of the time left."""
