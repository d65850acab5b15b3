"""A look at the data on one offline page, and the numbers behind its charts."""

from segpipe.pages.data_stats.page import read_stats, write_stats_page
from segpipe.pages.data_stats.schema import DataStats

__all__ = ["DataStats", "read_stats", "write_stats_page"]
