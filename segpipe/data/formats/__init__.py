"""One module a layout; each yields items that the importer writes in the canonical layout."""
