"""Figures of the paper's tables: Wu et al. 2021, arXiv 2112.04223, Tables I to VII."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Row(NamedTuple):
    """One line of a table.

    Args:
        label: as printed.
        values: one for each column; None where the paper prints "-".
        base: key of the row that the printed changes are against.
        changes: the differences printed in brackets, one for each column.
    """

    label: str
    values: tuple[float | None, ...]
    base: str | None = None
    changes: tuple[float, ...] = ()


class Slip(NamedTuple):
    """A printed change that is not the difference of the printed figures, in points."""

    row: str
    column: str
    printed: float
    computed: float


@dataclass(frozen=True)
class PaperTable:
    """A table as printed.

    Args:
        title: the paper's caption.
        unit: of all figures.
        head: what the rows are.
        columns: names of the columns, as printed but for the units.
        rows: lines by the name that this project gives them, in the paper's order.
        note: what the paper says beside the table, or gets wrong in its words.

    >>> TABLES[4].figure("rmg", "Mix")
    87.0
    >>> [(slip.printed, slip.computed) for slip in TABLES[7].list_slips()]
    [(-77.4, -67.4), (-18.4, -8.4)]
    """

    title: str
    unit: str
    head: str
    columns: tuple[str, ...]
    rows: Mapping[str, Row]
    note: str = ""

    def figure(self, row: str, column: str) -> float:
        """One printed figure.

        Raises:
            ValueError: no such row or column, or the paper prints "-" there.
        """
        for what, name, names in (("row", row, self.rows), ("column", column, self.columns)):
            if name not in names:
                raise ValueError(f"paper: '{self.title}' has no {what} {name!r}; choose one of {', '.join(names)}")
        value = self.rows[row].values[self.columns.index(column)]
        if value is None:
            raise ValueError(f"paper: '{self.title}' gives no figure for {row}, {column}")
        return value

    def change(self, row: str, column: str) -> float:
        """Difference between a row and its base, from the printed figures rather than the printed difference.

        Raises:
            ValueError: as for `figure`, or the row has no base.
        """
        value, base = self.figure(row, column), self.rows[row].base
        if base is None:
            raise ValueError(f"paper: '{self.title}' compares {row} with no other row")
        return round(value - self.figure(base, column), 1)

    def list_slips(self) -> list[Slip]:
        """List the printed changes that disagree with the printed figures."""
        printed = [
            (row, column, change)
            for row, line in self.rows.items()
            if line.changes
            for column, change in zip(self.columns, line.changes, strict=True)
        ]
        return [
            Slip(row, column, change, computed)
            for row, column, change in printed
            if (computed := self.change(row, column)) != change
        ]


# By the paper's numbers, I to VII.
TABLES: Mapping[int, PaperTable] = {
    1: PaperTable(
        title="Statistics of benchmark datasets",
        unit="classes or images",
        head="data",
        columns=("classes", "train", "test"),
        rows={
            "cub": Row("CUB-200-2011", (200, 5994, 5794)),
            "cars": Row("Standford Cars", (196, 8144, 8041)),
            "aircraft": Row("FGVC Aircraft", (100, 6667, 3333)),
        },
        note='"Standford" is a misprint for Stanford.',
    ),
    2: PaperTable(
        title="The performance of the proposed model when interacting at different stages",
        unit="% of CUB's test images, MobileNetV2 without RMG",
        head="StageNum",
        columns=("S1", "S2", "S3", "S4", "S5", "Concat", "Mix"),
        rows={
            "1": Row("{5} / 1", (None, None, None, None, 84.2, 84.2, 84.3)),
            "2": Row("{5, 4} / 2", (None, None, None, 84.7, 84.5, 84.9, 85.2)),
            "3": Row("{5, 4, 3} / 3", (None, None, 82.9, 84.8, 84.3, 85.5, 85.9)),
            "4": Row("{5, 4, 3, 2} / 4", (None, 80.5, 83.3, 84.7, 83.9, 85.1, 85.7)),
            "5": Row("{5, 4, 3, 2, 1} / 5", (74.2, 81.7, 83.0, 84.5, 84.3, 84.9, 85.1)),
        },
        note='With StageNum 1 (the text\'s "S=5"), Concat joins the output of stage 5 and its output after the MLP.',
    ),
    3: PaperTable(
        title="The contribution of each component in RMG-PMSI",
        unit="% of CUB's test images, MobileNetV2",
        head="components",
        columns=("Concat", "Mix"),
        rows={
            "baseline": Row("Baseline", (81.5, None)),
            "m": Row("+ M", (85.1, None)),
            "p": Row("+ P", (85.2, 85.5)),
            "pm": Row("+ P & M", (85.5, 85.9)),
            "pr": Row("+ P & R", (86.4, 86.8)),
            "pmr": Row("+ P & M & R", (86.6, 87.0)),
        },
        note="R must work with P.",
    ),
    4: PaperTable(
        title="Accuracy of different data augmentations",
        unit="% of CUB's test images, MobileNetV2",
        head="augmentation",
        columns=("Concat", "Mix"),
        rows={
            "none": Row("baseline", (85.5, 85.9)),
            "cutmix": Row("cutmix", (85.1, 85.3)),
            "mixup": Row("mixup", (85.6, 86.0)),
            "snapmix": Row("snapmix", (85.1, 85.1)),
            "jigsaw": Row("jigsaw", (86.3, 86.6)),
            "rmg": Row("RMG (ours)", (86.6, 87.0)),
        },
        note='The first column is headed "data argumentation", a misprint. The baseline is P & M of Table III.',
    ),
    5: PaperTable(
        title="Comparison with other state-of-the-art fine-grained recognition models",
        unit="% of CUB's test images, MobileNetV2",
        head="model",
        columns=("Concat", "Mix"),
        rows={
            "bcnn": Row("B-CNN", (83.2, None)),
            "hbp": Row("HBP", (85.1, None)),
            "pc": Row("PC", (84.5, None)),
            "api": Row("API", (85.7, None)),
            "pmg": Row("PMG", (85.9, 86.5)),
            "pmsi": Row("RMG-PMSI (ours)", (86.6, 87.0)),
        },
        note="Models with one output have one accuracy, printed under Concat.",
    ),
    6: PaperTable(
        title="The results on other stronger backbones",
        unit="% of test images; Mix for RMG-PMSI",
        head="backbone",
        columns=("CUB", "Car", "Air"),
        rows={
            "mobilenet_v2": Row("MobileNet-v2", (81.5, 90.9, 88.9)),
            "mobilenet_v2 pmsi": Row("+RMG-PMSI (ours)", (87.0, 94.0, 91.6), "mobilenet_v2", (5.5, 3.1, 2.7)),
            "resnet18": Row("ResNet-18", (82.0, 90.5, 87.5)),
            "resnet18 pmsi": Row("+RMG-PMSI (ours)", (86.8, 93.4, 90.2), "resnet18", (4.8, 2.9, 2.7)),
            "resnet34": Row("ResNet-34", (84.1, 91.8, 89.7)),
            "resnet34 pmsi": Row("+RMG-PMSI (ours)", (88.0, 94.2, 91.7), "resnet34", (3.9, 2.4, 2.0)),
        },
    ),
    7: PaperTable(
        title="Comparison of anti-interference ability of baseline and RMG-PMSI",
        unit="% of test images, MobileNetV2; Mix for RMG-PMSI",
        head="test images",
        columns=("CUB baseline", "CUB RMG-PMSI", "Car baseline", "Car RMG-PMSI", "Air baseline", "Air RMG-PMSI"),
        rows={
            "clean": Row("Origin", (81.5, 87.0, 90.9, 94.0, 88.9, 91.6)),
            "color_jitter": Row(
                "+ Color-Jitter",
                (14.1, 59.9, 69.7, 79.3, 64.7, 73.9),
                "clean",
                (-77.4, -27.1, -21.2, -14.7, -24.2, -17.7),
            ),
            "gaussian_noise": Row(
                "+ Gaussian-Noise",
                (22.2, 78.6, 75.0, 86.5, 82.6, 86.6),
                "clean",
                (-59.3, -18.4, -15.9, -7.5, -6.3, -5.0),
            ),
        },
        note='The text gives the noise as "mean=0, variance=0, amplitude=5"; a variance of 0 would be no noise at all.',
    ),
}
