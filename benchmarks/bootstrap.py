"""Speed of BCa intervals, compared with scipy.stats.bootstrap on the same problem in the same run.

    python benchmarks/bootstrap.py [--images 1000] [--classes 11] [--resamples 10000]

The problem is macro IoU of a dataset, from the counts of its images. scipy draws images and calls the score for batches of resamples;
segpipe sums the counts of a resample by a matrix product. Prints seconds, the bounds of the intervals and the ratio.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy import stats

from segpipe.evaluation.paired_statistics import compare
from segpipe.evaluation.statistics import bootstrap, statistic
from segpipe.metrics import Tallies, macro, metric, tallies

SCORE = "iou.dataset.macro"


def by_scipy(tally: Tallies, resamples: int) -> tuple[float, float]:
    def score_of(drawn: np.ndarray, axis: int) -> np.ndarray:  # drawn: (..., images), indices of images
        return macro("iou", tally[drawn].sum(-3))

    indices = np.arange(len(tally))
    rng = np.random.default_rng(0)
    interval = stats.bootstrap(
        (indices,), score_of, n_resamples=resamples, batch=100, method="BCa", rng=rng
    ).confidence_interval
    return float(interval.low), float(interval.high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--classes", type=int, default=11)
    parser.add_argument("--resamples", type=int, default=10_000)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    k, n = arguments.classes, arguments.images
    tally, other = (
        tallies(rng.poisson(50, (n, k, k)) + rng.poisson(4000, (n, k))[:, None] * np.eye(k, dtype=int)) for _ in "ab"
    )
    score = metric(SCORE, [str(i) for i in range(k)])
    first, second = (statistic(score, one, np.arange(n)) for one in (tally, other))
    bootstrap(first, n, 100, 0.95)  # the first call imports scipy

    start = time.perf_counter()
    ours = bootstrap(first, n, arguments.resamples, 0.95)
    ours_s = time.perf_counter() - start
    start = time.perf_counter()
    compare(first, second, arguments.resamples, 0.95)
    compare_s = time.perf_counter() - start
    start = time.perf_counter()
    low, high = by_scipy(tally, arguments.resamples)
    theirs_s = time.perf_counter() - start
    assert max(abs(ours.low - low), abs(ours.high - high)) < 0.05 * (high - low), "the intervals must be equal"
    print(f"BCa of {SCORE}, {n} images, {k} classes, {arguments.resamples} resamples")
    print(f"segpipe  {ours_s:8.3f} s   [{ours.low:.5f}, {ours.high:.5f}]")
    print(f"scipy    {theirs_s:8.3f} s   [{low:.5f}, {high:.5f}]   {theirs_s / ours_s:.1f} x")
    print(f"segpipe, two models compared (interval, permutation test, detectable difference): {compare_s:.3f} s")


if __name__ == "__main__":
    main()
