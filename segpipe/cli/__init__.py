"""The command line: one command a stage, and a verb a user would say."""
