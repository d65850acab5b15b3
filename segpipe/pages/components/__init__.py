"""Parts that several pages share: axes, charts, tables and galleries."""
