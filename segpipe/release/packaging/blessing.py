"""The blessing: the last test of a Bento before its release.

The Bento is served by a real server process in an environment of its own, with no packages but those that it requires, as in a container.
The golden images are sent to it over HTTP, and every pixel of the returned masks must equal the golden masks. This shows that the packaged
model, with its pinned packages and its server, predicts what the evaluated model predicts. A Bento that passed is called blessed.
"""

from __future__ import annotations

import operator
import statistics
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from segpipe.errors import GateBlocked
from segpipe.inference.spec import SegmenterSpec
from segpipe.release.bundle import GOLDEN_LIMITS, Card, Golden, compare_masks, golden_pairs
from segpipe.release.packaging.bento_server import Server, start_server
from segpipe.release.packaging.environment import environment_mb, environment_python

_MAX_TIMED_REQUESTS = 24
_MAX_TIMED_S = 20.0


class BlessReport(BaseModel):
    """The measurements of a blessing."""

    model_config = ConfigDict(extra="forbid")
    bento: str
    """The Bento, NAME:VERSION."""
    images: int
    """Number of golden images."""
    pixels: int
    differing_pixels: int
    requests: int
    """Number of timed requests."""
    p50_ms: float
    """Median duration of whole requests over loopback, one at a time."""
    p95_ms: float
    """95th percentile of the same durations."""
    startup_s: float
    """Seconds until the server was ready."""
    memory_mb: float | None = Field(None, exclude_if=operator.not_)
    """Memory of the server's processes after the requests, MiB; None in records of early releases."""
    environment_mb: float | None = Field(None, exclude_if=operator.not_)
    """Size of the packages that the Bento requires, MiB; None if it was served with the packages of the workspace."""


def bless(bento: Path, bundle: Path) -> BlessReport:
    """Serve a built Bento, send it the golden images of a bundle, and compare the masks.

    Args:
        bento: the folder of the Bento.
        bundle: the folder of the bundle that it was built from.

    Raises:
        MissingError: the packages that the Bento requires cannot be installed.
        GateBlocked: the Bento serves another model, rejects a golden image, or a single pixel differs from the golden masks.
        SegpipeError: the server does not start.
    """
    python = environment_python(bento.resolve())
    with start_server(bento.resolve(), python=python) as server:
        _check_model(server, bundle)
        pairs = golden_pairs(bundle)
        masks, times_ms = _replay(server, pairs, SegmenterSpec.read(bundle))
        memory_mb = server.memory_mb()
    comparison = compare_masks(pairs, masks)
    if not comparison.identical:
        raise GateBlocked(
            "the served model does not give the golden masks",
            where=bento,
            found=f"{comparison.differing:,} of {comparison.pixels:,} pixels differ, the most in {comparison.worst}",
            expected="none",
            fix="export again on the kind of machine that serves: dvc repro --force -s export",
        )
    return BlessReport(
        bento=f"{bento.parent.name}:{bento.name}",
        images=comparison.images,
        pixels=comparison.pixels,
        differing_pixels=0,
        requests=len(times_ms),
        p50_ms=round(statistics.median(times_ms), 2),
        p95_ms=round(float(np.percentile(times_ms, 95)), 2),
        startup_s=round(server.startup_s, 2),
        memory_mb=round(memory_mb),
        environment_mb=round(environment_mb(python)),
    )


def _check_model(server: Server, bundle: Path) -> None:
    import httpx

    served = httpx.get(f"{server.url}/v1/model", trust_env=False, timeout=30).raise_for_status().json()
    expected = Card.read(bundle).weights_sha256
    if served["weights_sha256"] != expected:
        raise GateBlocked(
            "the Bento serves another model",
            found=f"weights {served['weights_sha256'][:12]}",
            expected=expected[:12],
        )


def _replay(
    server: Server, pairs: list[Golden], spec: SegmenterSpec
) -> tuple[list[npt.NDArray[np.uint8]], list[float]]:
    """Send each golden image once for its mask, then again in turn for timings.

    Returns:
        One mask of class ids per golden image, and the durations of the timed requests in milliseconds.
    """
    import httpx

    from segpipe.data.images import decode_image

    contents = [pair.input.read_bytes() for pair in pairs]
    with httpx.Client(base_url=server.url, trust_env=False, timeout=120) as client:

        def request_mask(index: int) -> bytes:
            answer = client.post(
                "/v1/segment", params={"format": "mask"}, files={"image": (pairs[index].input.name, contents[index])}
            )
            if answer.status_code != 200:
                raise GateBlocked(
                    "the server rejected a golden image",
                    where=pairs[index].input,
                    found=f"{answer.status_code}: {answer.text[:300]}",
                    fix=f"see the end of the server's log: {server.log_tail(400)}",
                )
            return answer.content

        answers = [request_mask(index) for index in range(len(pairs))]
        times_ms: list[float] = []
        while len(times_ms) < _MAX_TIMED_REQUESTS and sum(times_ms) < 1000 * _MAX_TIMED_S:
            start = time.perf_counter()
            request_mask(len(times_ms) % len(pairs))
            times_ms.append(1000 * (time.perf_counter() - start))
    masks = [spec.classes.encode(decode_image(answer, "answer", GOLDEN_LIMITS)[..., 0]) for answer in answers]
    return masks, times_ms
