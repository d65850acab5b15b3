"""Commands for released versions and live stages."""
