"""Import, export, import: nothing that a layout carries is lost. What it carries is said by its line in `EXPORTERS`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from segpipe.data.dataset import load_dataset
from segpipe.data.exporters import EXPORTERS, export_dataset
from segpipe.data.formats import FORMATS
from segpipe.data.importer import ImportOptions, import_dataset

from .datasets import LIMITS, assert_same, specs, write


@pytest.mark.parametrize("name", EXPORTERS)
@settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink a whole dataset takes minutes
)  # fmt: skip
@given(data=st.data())
def test_out_and_in_again(name: str, data: st.DataObject) -> None:
    carries = EXPORTERS[name].carries
    spec = data.draw(specs(carries))
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        before = load_dataset(write(spec, root / "data"))
        report = export_dataset(before, root / "out", name, LIMITS, jobs=1)
        assert report.images == len(before.items)
        assert report.left_out == []
        imported = import_dataset(root / "out", root / "again", name, ImportOptions(), jobs=1)
        assert imported.skipped == []
        assert_same(before, load_dataset(root / "again"), carries)


@pytest.mark.parametrize("name", EXPORTERS)
def test_what_goes_out_is_recognised(name: str, tmp_path: Path) -> None:
    if name not in FORMATS:
        pytest.skip("no reader of this layout")
