"""The verdict on the manifest."""
