"""stub"""

from __future__ import annotations
from typing import Any
from pathlib import Path
from torch import Tensor
from rich.table import Table


def write_report(results: dict[str, Any], strips: dict[str, Tensor], path: Path) -> None:
    path.write_text("x")


def rich_table(results: dict[str, Any]) -> Table:
    t = Table("method", "Concat", "Mix")
    for row in results["rows"]:
        for run in row["runs"]:
            t.add_row(row["method"], f"{run['concat']:.1f}", f"{run['mix']:.1f}")
    return t
