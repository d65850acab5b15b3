"""Numbers that can be trusted: metrics, intervals, gates, the report."""
