"""Tables of README and docs/, from bench/results and from the source: `python -m bench.pages` rewrites them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from bench import paper_tables, source_tables, trust_tables
from bench.gpu import tables as model_tables
from bench.results import ROOT
from bench.throughput import busy, scaling_plot
from bench.throughput import tables as throughput_tables
from bench.training import tables as engine_tables

BIRDS = "reproduce-cub.json"  # what `pmsi reproduce` left on 100 classes of CUB-200-2011, as the others
REGIMES = ("reproduce-regimes.json", "images/regimes.png")  # results, and their picture in docs/
MOBILE = ("reproduce-cub-mobile.json", "images/mobile.png")
REGIMES_BIRDS = ("reproduce-cub-regimes.json", "images/regimes-cub.png")

PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"summary": throughput_tables.render_summary},
    "docs/benchmarks.md": {
        "throughput": throughput_tables.render,
        "busy": busy.render,
        "engine": engine_tables.render,
        "gpu-model": model_tables.render,
        "host": model_tables.render_host,
    },
    "docs/pmsi.md": {"recipe-fields": source_tables.render_recipe_fields},
    "docs/architecture.md": {
        "ladder-pmsi": partial(source_tables.render_ladder, "pmsi"),
        "ladder-mosaicaug": partial(source_tables.render_ladder, "mosaicaug"),
        "files-mosaicaug": partial(source_tables.render_files, "mosaicaug"),
        "files-pmsi": partial(source_tables.render_files, "pmsi"),
    },
    "docs/trust.md": {
        "hostile": trust_tables.render_hostile,
        "fuzz": trust_tables.render_fuzz,
        "soak": trust_tables.render_soak,
        "launches": trust_tables.render_launches,
        "mutation": trust_tables.render_mutation,
        "versions": trust_tables.render_versions,
    },
    "docs/which_pipeline.md": {"doors": throughput_tables.render_doors},
    "docs/reproduced.md": {
        "few-shot": partial(paper_tables.render, "reproduce-few-shot.json", "table4"),
        "cub-long": partial(paper_tables.render, "reproduce-cub-long.json", "table4"),
        "cub-parts": partial(paper_tables.render, "reproduce-cub-parts.json", "table3"),
        "cub-mixup": partial(paper_tables.render, "reproduce-cub-parts.json", "table4"),
        "regimes": partial(paper_tables.render_regimes, *REGIMES),
        "regimes-cub": partial(paper_tables.render_regimes, *REGIMES_BIRDS),
        "tables-3-4": partial(paper_tables.render, BIRDS, "table3", "table4"),
        "table-2": partial(paper_tables.render, "reproduce-cub-stages.json"),
        "table-5": partial(paper_tables.render, BIRDS, "table5"),
        "table-6": partial(paper_tables.render, "reproduce-cub-backbones.json"),
        "table-7": partial(paper_tables.render, BIRDS, "table7"),
        "candidates": partial(paper_tables.render, "reproduce-cub-candidates.json"),
        "candidates-long": partial(paper_tables.render, "reproduce-cub-candidates-long.json"),
        "candidates-cpu": partial(paper_tables.render, "reproduce-cub-candidates-cpu.json"),
        "differences": partial(paper_tables.render_differences, BIRDS),
        "modern": partial(paper_tables.render, "reproduce-cub-modern.json"),
        "modern-long": partial(paper_tables.render, "reproduce-cub-modern-long.json"),
        "mobile": partial(paper_tables.render_costs, *MOBILE),
        "mobile-final": partial(paper_tables.render, "reproduce-cub-mobile-final.json"),
    },
}


def insert(page: str, text: str) -> str:
    """Fill the marked places of a page's ``text``."""
    for name, render in PAGES[page].items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        head, _, rest = text.partition(start)
        _, _, tail = rest.partition(end)
        if not tail:
            raise ValueError(f"{page} has no place marked {start.strip()} ... {end}")
        text = head + start + "\n" + render() + "\n" + end + tail
    return text


if __name__ == "__main__":
    for page in PAGES:
        place = ROOT / page
        place.write_text(insert(page, place.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"{place} is up to date")
    if (results := throughput_tables.load("cpu")) is not None:
        picture = ROOT / "docs" / "images" / "scaling.png"
        scaling_plot.draw(results, picture)
        print(f"{picture} is drawn")
    for file, name in (REGIMES, REGIMES_BIRDS):
        if paper_tables.draw_regimes(file, ROOT / "docs" / name):
            print(f"{ROOT / 'docs' / name} is drawn")
    if paper_tables.draw_costs(MOBILE[0], ROOT / "docs" / MOBILE[1]):
        print(f"{ROOT / 'docs' / MOBILE[1]} is drawn")
