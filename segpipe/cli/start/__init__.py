"""Commands to start with: init, demo, families, doctor."""
