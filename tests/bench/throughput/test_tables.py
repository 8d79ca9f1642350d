"""Tables of throughput: wins, losses, failures, and what was not measured."""

from __future__ import annotations

from pathlib import Path

from bench.results import write_results
from bench.throughput import tables
from bench.throughput.rows import compare_with_copies
from tests.helpers.bench_results import make_environment, make_throughput_rows


def test_tables_show_wins_and_losses(throughput_folder: Path) -> None:
    text = tables.render(throughput_folder)
    [line] = [line for line in text.splitlines() if line.startswith("| CutMix | float32")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[2:6] == ["20", "2.00", "12", "1.20"]
    assert cells[8] == "Kornia 3.0x slower, timm as fast, DALI 1.5x slower"
    assert cells[9] == "Kornia 3.0x slower, torchvision 2.0x faster, timm as fast, DALI 1.5x slower"
    assert "published loop failed" in text
    assert "0 of" in text
    assert "the most is 2.00 MiB" in text
    assert "**GPU**: not measured yet." in text


def test_the_summary_names_the_fastest_other(throughput_folder: Path) -> None:
    text = tables.render_summary(throughput_folder)
    assert "Fast One, 2 CPU threads:" in text
    assert "| RMG, r=3 | 12 (20) | 10 | 30 DALI | 12 (20) | 10 | 30 DALI |" in text, "the loop failed"
    (throughput_folder / "throughput-cpu-fast-one.json").unlink()
    assert tables.render_summary(throughput_folder) == "Not measured yet.\n"


def test_doors_stand_beside_the_class(throughput_folder: Path) -> None:
    lines = tables.render_doors(throughput_folder).splitlines()
    assert "| CutMix | uint8 | 20 | 21 (1.05x) | 22 (1.10x) | 25 (1.25x) | 30 (1.50x) |" in lines
    assert lines[3] == "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    (throughput_folder / "throughput-cpu-fast-one.json").unlink()
    assert tables.render_doors(throughput_folder) == "Not measured yet.\n"


def test_what_was_not_measured_says_so(tmp_path: Path) -> None:
    assert tables.render(tmp_path) == "**CPU**: not measured yet.\n\n**GPU**: not measured yet.\n"
    rows = compare_with_copies(list(make_throughput_rows()))
    write_results(tmp_path / "gpu-check-fast-one.json", make_environment("cuda"), rows)
    text = tables.render(tmp_path)
    assert text.startswith("**CPU**: not measured yet.\n\n**GPU**: Fast One, ")
