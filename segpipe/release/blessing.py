"""Blessing: serve the Bento as it is, replay the golden images over HTTP, and hold the answers against the golden masks."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from segpipe.errors import GateBlocked
from segpipe.inference.spec import SegmenterSpec
from segpipe.release.bento_server import Server, start_server
from segpipe.release.bundle import GOLDEN_LIMITS, Card, Golden, compare_masks, golden_pairs

_REQUESTS = 24
_SECONDS = 20.0


class BlessReport(BaseModel):
    """What was seen when a Bento was served and asked."""

    model_config = ConfigDict(extra="forbid")
    bento: str
    images: int
    pixels: int
    differing_pixels: int
    requests: int
    p50_ms: float
    p95_ms: float
    """Whole requests over loopback, one at a time."""
    startup_s: float


def bless(bento: Path, bundle: Path) -> BlessReport:
    """Serve a built Bento and replay the golden images of a bundle.

    Raises GateBlocked where the Bento answers with another model or with other masks than the golden ones: not one pixel may differ.
    """
    with start_server(bento.resolve(), home=bento.resolve().parents[2]) as server:
        _same_model(server, bundle)
        pairs = golden_pairs(bundle)
        masks, times = _replay(server, pairs, SegmenterSpec.read(bundle))
    comparison = compare_masks(pairs, masks)
    if not comparison.identical:
        raise GateBlocked(
            "the served model does not answer with the golden masks",
            where=bento,
            found=f"{comparison.differing:,} of {comparison.pixels:,} pixels differ, the most in {comparison.worst}",
            expected="none",
            fix="export again on the machine kind that serves: dvc repro --force -s export",
        )
    return BlessReport(
        bento=f"{bento.parent.name}:{bento.name}",
        images=comparison.images,
        pixels=comparison.pixels,
        differing_pixels=0,
        requests=len(times),
        p50_ms=round(statistics.median(times), 2),
        p95_ms=round(float(np.percentile(times, 95)), 2),
        startup_s=round(server.startup_s, 2),
    )


def _same_model(server: Server, bundle: Path) -> None:
    import httpx

    served = httpx.get(f"{server.url}/v1/model", trust_env=False, timeout=30).raise_for_status().json()
    wanted = Card.read(bundle)
    if served["weights_sha256"] != wanted.weights_sha256:
        raise GateBlocked(
            "the Bento serves another model",
            found=f"weights {served['weights_sha256'][:12]}",
            expected=wanted.weights_sha256[:12],
        )


def _replay(
    server: Server, pairs: list[Golden], spec: SegmenterSpec
) -> tuple[list[npt.NDArray[np.uint8]], list[float]]:
    """One mask of class ids for each golden image, and the milliseconds of further requests, image by image in turn."""
    import httpx

    from segpipe.data.images import decode_image

    contents = [pair.input.read_bytes() for pair in pairs]
    with httpx.Client(base_url=server.url, trust_env=False, timeout=120) as client:

        def ask(index: int) -> bytes:
            answer = client.post(
                "/v1/segment", params={"format": "mask"}, files={"image": (pairs[index].input.name, contents[index])}
            )
            if answer.status_code != 200:
                raise GateBlocked(
                    "the server refused a golden image",
                    where=pairs[index].input,
                    found=f"{answer.status_code}: {answer.text[:300]}",
                    fix=f"the end of the server's log: {server.log_tail(400)}",
                )
            return answer.content

        answers = [ask(index) for index in range(len(pairs))]
        times: list[float] = []
        while len(times) < _REQUESTS and sum(times) < 1000 * _SECONDS:
            start = time.perf_counter()
            ask(len(times) % len(pairs))
            times.append(1000 * (time.perf_counter() - start))
    masks = [spec.classes.encode(decode_image(answer, "answer", GOLDEN_LIMITS)[..., 0]) for answer in answers]
    return masks, times
