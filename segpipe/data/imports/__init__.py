"""Parts of an import: names, groups and splits of its items, its report, and the files that it does not use."""
