"""The command line: one file per command, one folder per group of commands."""
