"""Random folders: every file is used or counted exactly once, and an import writes into its own folder alone."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st

from segpipe.data.importer import ImportOptions, ImportReport, import_dataset
from segpipe.errors import SegpipeError
from tests.worlds.property_tests import examples
from tests.worlds.random_trees import CLUTTER, LAYOUTS, STEMS, Clutter, Tree, add_clutter, files_below

_SETTINGS = examples(
    40,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking a whole folder takes minutes
)


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of change of everything below a folder that is not a folder."""
    return {str(path): (os.lstat(path).st_size, os.lstat(path).st_mtime_ns) for path in files_below(folder)}


def used_paths(tree: Tree, data: Path) -> set[Path]:
    """Return the files of a tree whose bytes are in the data, and its annotations; links to them count, too."""
    copied = {path.read_bytes() for name in ("images", "masks") for path in (data / name).iterdir()}
    used = {path for path, content in tree.contents.items() if content in copied} | tree.texts
    real = {os.path.realpath(path) for path in used}
    return {path for path in files_below(tree.source) if os.path.realpath(path) in real}


def check_counts(tree: Tree, data: Path, report: ImportReport) -> None:
    used, files = used_paths(tree, data), [*files_below(tree.source)]
    assert sum(group.files for group in report.unused) == len(files) - len(used), (report.unused, set(files) - used)
    assert len({(group.kind, group.reason) for group in report.unused}) == len(report.unused)
    for group in report.unused:
        assert os.path.lexists(tree.source / group.example)
        assert tree.source / group.example not in used


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_file_is_used_or_counted_once(layout: str) -> None:
    outcomes: Counter[str] = Counter()

    @_SETTINGS
    @given(stems=st.lists(STEMS, min_size=2, max_size=5, unique_by=str.casefold), clutter=st.lists(CLUTTER, max_size=8))
    def check(stems: list[str], clutter: list[Clutter]) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch)
            tree = Tree(root / "source")
            tree.source.mkdir()
            LAYOUTS[layout](tree, stems)
            if layout == "splits":  # next to train/ and val/, images/ would be a second dataset
                clutter = [part for part in clutter if not part.folder.startswith("images") and part.kind != "mask"]
            for seed, part in enumerate(clutter):
                add_clutter(tree, part, seed)
            before = snapshot(root)
            try:
                report = import_dataset(tree.source, root / "work" / "data", "auto", ImportOptions(), jobs=1)
            except SegpipeError as error:
                assert "\n" not in str(error)
                outcomes["refused"] += 1
                assert snapshot(root) == before
                return
            outcomes["imported"] += 1
            check_counts(tree, root / "work" / "data", report)
            after = snapshot(root)
            assert {path: after[path] for path in before} == before
            assert all(path.startswith(f"{root}/work/data/") for path in after.keys() - before.keys())

    check()
    assert outcomes["imported"] > 3 * outcomes["refused"], outcomes
