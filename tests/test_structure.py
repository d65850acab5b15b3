"""The tests lie in the folders of the code that they test."""

from pathlib import Path

BESIDE_THE_ROOMS = {"worlds", "browser", "e2e", "flows"}
"""Shared data, models and workspaces; and tests of the whole program, which have no room in segpipe/."""


def test_every_folder_of_tests_is_a_folder_of_segpipe(repo_root: Path) -> None:
    folders = {path.parent.relative_to(repo_root / "tests") for path in (repo_root / "tests").rglob("*.py")}
    rooms = {folder for folder in folders if folder.parts and folder.parts[0] not in BESIDE_THE_ROOMS}
    unknown = [str(room) for room in sorted(rooms) if not (repo_root / "segpipe" / room).is_dir()]
    assert not unknown and rooms
