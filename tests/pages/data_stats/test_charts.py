"""Charts of sizes and of intensity windows."""

from __future__ import annotations

from segpipe.pages.components.axes import LogAxis
from segpipe.pages.data_stats.charts import ribbon_chart, scatter_chart
from segpipe.pages.data_stats.schema import Size


def test_the_area_of_a_dot_grows_with_the_number_of_images() -> None:
    chart = scatter_chart(
        [Size(width=100, height=50, depth=None, images=400), Size(width=10, height=9, depth=3, images=100)]
    )
    assert chart.dots[0].radius == 2 * chart.dots[1].radius
    assert chart.dots[0].x > chart.dots[1].x
    assert chart.dots[0].y < chart.dots[1].y
    assert "10 × 9 × 3" in chart.dots[1].title


def test_many_sizes_share_dots_and_no_image_is_lost() -> None:
    sizes = [Size(width=30 + n, height=20 + (7 * n) % 90, depth=None, images=1 + n % 3) for n in range(400)]
    chart = scatter_chart(sizes)
    assert len(chart.dots) < 300
    assert sum(int(dot.title.split(": ")[1]) for dot in chart.dots) == sum(size.images for size in sizes)


def test_a_far_outlier_makes_the_axis_logarithmic() -> None:
    assert isinstance(ribbon_chart([(1, 5, 10)] * 9 + [(1, 5, 1e6)]).y, LogAxis)
    assert not isinstance(ribbon_chart([(1, 5, 10)] * 9).y, LogAxis)
