"""Answers about photographs: five best classes with calibrated confidence, as a table, CSV or JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Format = Literal["table", "csv", "jsonl"]
RANKS = 5
NOT_SURE = "not sure"


@dataclass(frozen=True)
class Answer:
    """Best classes of one photograph.

    Args:
        path: of the photograph.
        classes: names, best first.
        confidences: calibrated, 0 to 1.
        sure: the best reaches the threshold.
    """

    path: Path
    classes: tuple[str, ...]
    confidences: tuple[float, ...]
    sure: bool

    @property
    def verdict(self) -> str:
        """Best class, or "not sure"."""
        return self.classes[0] if self.sure else NOT_SURE


def make_answer(path: Path, probabilities: NDArray[np.float32], classes: Sequence[str], threshold: float) -> Answer:
    """Make the answer of one photograph from its probabilities ``[K]``.

    >>> make_answer(Path("a.jpg"), np.array([0.2, 0.5, 0.3]), ("wren", "tern", "gull"), 0.6).verdict
    'not sure'
    """
    best = np.argsort(-probabilities, kind="stable")[:RANKS]
    found = tuple(float(probabilities[place]) for place in best)
    return Answer(path, tuple(classes[place] for place in best), found, found[0] >= threshold)


def render_answers(answers: Sequence[Answer], form: Format) -> str:
    """Render all answers as text that ends with a line end."""
    if form == "jsonl":
        return "".join(f"{json.dumps(_to_dict(one))}\n" for one in answers)
    if form == "csv":
        return _render_csv(answers)
    return render_table(
        ("photograph", "answer", "confidence", "also"),
        [
            (str(one.path), one.verdict, f"{100 * one.confidences[0]:.1f} %", _list_others(one, skip=one.sure))
            for one in answers
        ],
    )


def render_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Render aligned columns, two spaces apart."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )


def _list_others(answer: Answer, *, skip: bool) -> str:
    pairs = list(zip(answer.classes, answer.confidences, strict=True))[int(skip) :]
    return ", ".join(f"{name} {100 * share:.1f} %" for name, share in pairs)


def _to_dict(answer: Answer) -> dict[str, object]:
    best = [
        {"class": name, "confidence": round(share, 6)}
        for name, share in zip(answer.classes, answer.confidences, strict=True)
    ]
    return {"file": str(answer.path), "answer": answer.verdict, "sure": answer.sure, "best": best}


def _render_csv(answers: Sequence[Answer]) -> str:
    file = io.StringIO()
    rows = csv.writer(file, lineterminator="\n")
    count = max((len(one.classes) for one in answers), default=RANKS)
    numbered = [f"{what}_{rank}" for rank in range(1, count + 1) for what in ("class", "confidence")]
    rows.writerow(["file", "answer", "sure", *numbered])
    for one in answers:
        pairs = zip(one.classes, one.confidences, strict=True)
        best = [cell for name, share in pairs for cell in (name, f"{share:.6f}")]
        rows.writerow([one.path, one.verdict, str(one.sure).lower(), *best])
    return file.getvalue()
