"""The choice of how many images are predicted at once."""

from __future__ import annotations

import numpy as np
import pytest

from segpipe.inference.engines.checked_graph import CheckedGraphEngine
from segpipe.inference.images_at_once import engine_threads, fitting_images, parallel_jobs
from segpipe.inference.segmenter import Segmenter
from segpipe.samples import Sample
from tests.worlds.bundles import toy_segmenter
from tests.worlds.segmenters import Pixelwise

SPEC = toy_segmenter().spec.model_copy(update={"tile": 1024})


def sample(height: int, width: int) -> Sample:
    return Sample("a", np.broadcast_to(np.zeros(1, np.uint8), (height, width, 3)))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((208, 208), (1 << 21) // (208 * 208)),
        ((1024, 1024), 2),  # two tiles fill the memory of the network
        ((2048, 1024), 2),  # 2 x 3 x 2048 x 1024 probabilities
        ((4096, 4096), 1),
    ],
)
def test_images_fit_by_their_probabilities_and_by_the_input_of_the_network(
    size: tuple[int, int], expected: int
) -> None:
    assert fitting_images(SPEC, sample(*size)) == expected


@pytest.mark.parametrize(
    ("size", "cores", "threads"), [((208, 208), 2, 1), ((208, 208), 32, 4), ((1024, 1024), 8, 4), ((4096, 4096), 8, 8)]
)
def test_the_cores_are_shared_by_the_images(size: tuple[int, int], cores: int, threads: int) -> None:
    reader = [sample(64, 64), sample(*size), sample(64, 64)]
    assert engine_threads(SPEC, reader, cores) == threads
    assert engine_threads(SPEC, [], cores) == cores
    assert engine_threads(SPEC.model_copy(update={"dims": 3}), reader, cores) == 0


def test_an_engine_that_uses_all_cores_predicts_one_image_at_a_time() -> None:
    class Threaded(Pixelwise):
        def __init__(self, threads: int) -> None:
            super().__init__()
            self.threads = threads

    def jobs(engine: object, cores: int = 6) -> int:
        return parallel_jobs(Segmenter(SPEC, engine), cores)

    assert jobs(toy_segmenter().engine) == 1
    assert [jobs(Threaded(threads)) for threads in (0, 1, 2, 6)] == [1, 6, 3, 1]
    assert jobs(CheckedGraphEngine(Threaded(2), Pixelwise(), SPEC.outputs)) == 3
    assert jobs(Pixelwise(), cores=64) == 8, "a classical model uses one thread"
