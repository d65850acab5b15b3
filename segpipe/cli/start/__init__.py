"""Commands to begin with: init, demo, families, doctor."""
