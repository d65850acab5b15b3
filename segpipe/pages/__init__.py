"""The HTML pages: data statistics, validation, report, comparison and suspected label errors.

Each page is one file that needs no network and no script to be read. `environment.render` makes it from a template in `templates/`;
`components/` holds what several pages share.
"""
