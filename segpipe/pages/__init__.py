"""HTML pages: data, validation, report, comparison, suspects."""
