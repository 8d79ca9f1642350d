"""Table of exported files beside the checkpoint that they were made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pmsi.report.table import Table


def exports_table(files: Sequence[Mapping[str, Any]], images: str) -> Table:
    """Set exported files beside their checkpoint: agreement, accuracy with the paired test, size, latency.

    Args:
        files: what the JSON beside each file holds.
        images: that they were tested with, in words.
    """
    rows = []
    for one in files:
        low, high = one["interval"]
        p_value = "" if one["p_value"] is None else f"{one['p_value']:.2g}" if one["p_value"] > 1e-99 else "< 1e-99"
        rows.append(
            (
                one["format"] + ("" if one["file"] is not None else " (refused)"),
                f"{one['bytes'] / 1e6:.2f}",
                f"{one['milliseconds']:.1f}",
                f"{one['checkpoint_milliseconds']:.1f}",
                f"{one['agreement']:.2f}",
                f"{one['largest_difference']:.1e}",
                f"{one['accuracy']:.2f}",
                f"{one['checkpoint_accuracy']:.2f}",
                f"{one['difference']:+.2f} ({low:+.2f} to {high:+.2f})",
                p_value,
                one["verdict"],
            )
        )
    head = (
        *("format", "MB", "ms", "ms, checkpoint", "agreement, %", "largest difference", "accuracy, %"),
        *("checkpoint, %", "difference, points (interval)", "McNemar p", "verdict"),
    )
    notes = (
        "Each file was asked through its own runtime; latency is of one image, in turns with the checkpoint.",
        *(
            f"{one['format']}: layers in {precision}: {', '.join(one[f'in_{precision}'])}."
            for one in files
            for precision in ("float32", "int4")
            if one[f"in_{precision}"]
        ),
    )
    return Table(f"Exported files on {images}.", head, tuple(rows), notes=notes)
