"""`segpipe data stats`: a dataset as numbers and as one offline page."""

from segpipe.pages.data_stats.page import read_stats, write_stats_page
from segpipe.pages.data_stats.schema import DataStats

__all__ = ["DataStats", "read_stats", "write_stats_page"]
