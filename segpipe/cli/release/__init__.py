"""Commands about released versions and what is live."""
