"""A model as a bundle behind the app that a Bento serves, without a server process: `tests/release/test_bento.py` has those."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from starlette.testclient import TestClient

from segpipe.config import DataParams, ExportParams
from segpipe.data.images import decode_image
from segpipe.inference.segmenter import Segmenter
from segpipe.release.bundle import golden_pairs
from segpipe.release.export.bundle_export import write_bundle
from segpipe.release.export.golden import Reader
from segpipe.serving.api import attach, create_app
from segpipe.serving.model_holder import ModelHolder
from segpipe.serving.settings import Settings
from tests.worlds.bundles import toy_selection


def shares_of_golden_pixels(trained: Segmenter, reader: Reader, folder: Path) -> tuple[float, float]:
    """Of the pixels of all golden images in the bundle, those on which the answer to an upload is the bundle's golden mask, and the
    trained model's class. Of all, as an engine is chosen: bfloat16 turns single pixels at borders."""
    bundle, selection = folder / "bundle", toy_selection()
    trained = trained.but(candidate=selection.winner)
    write_bundle(trained, "0" * 64, reader, selection, ExportParams(golden=2), bundle)
    app = create_app()
    attach(
        app,
        ModelHolder(None, bundle),
        Settings(endpoint=None, bundle=bundle, workers=1, max_upload_mb=8, max_megapixels=4),
    )
    golden, own = [], []
    with TestClient(app) as client:
        for pair in golden_pairs(bundle):
            upload = {"image": (pair.input.name, pair.input.read_bytes())}
            answer = client.post("/v1/segment?format=mask", files=upload)
            assert answer.status_code == 200, answer.text
            mask = trained.spec.classes.encode(decode_image(answer.content, "answer", DataParams())[..., 0])
            golden.append(np.ravel(mask == pair.class_ids()))
            own.append(np.ravel(mask == trained.predict(**pair.given()).class_ids))
    return float(np.concatenate(golden).mean()), float(np.concatenate(own).mean())
