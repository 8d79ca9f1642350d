"""The picture of the time over the number of tiles."""

from __future__ import annotations

from pathlib import Path

from bench.throughput import scaling_plot, tables
from bench.throughput.cases import centre
from bench.throughput.rows import index_rows


def test_the_picture_is_a_function_of_the_results(throughput_folder: Path) -> None:
    loaded = tables.load("cpu", throughput_folder)
    assert loaded is not None
    pictures = [throughput_folder / f"{name}.png" for name in ("one", "two", "three")]
    for path in pictures[:2]:
        scaling_plot.draw(loaded, path)
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    index_rows(loaded["rows"])[centre("rmg", level=5), "ours_out"]["median_ms"] = 30.0
    scaling_plot.draw(loaded, pictures[2])
    assert pictures[0].read_bytes() != pictures[2].read_bytes()
