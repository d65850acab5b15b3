"""A look at the data on one offline page, and the numbers behind its charts."""

from segpipe.data.stats.numbers import DataStats
from segpipe.data.stats.page import read_stats, write_stats_page

__all__ = ["DataStats", "read_stats", "write_stats_page"]
