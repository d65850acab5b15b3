"""Fixtures: a workspace with a bundle that can be released."""

from tests.worlds.released_workspace import bundle, bundles, no_git_user, root, template  # noqa: F401
