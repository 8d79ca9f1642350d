"""The paper's figures: typed a second time, held against each other, and against the printed changes."""

from __future__ import annotations

import pytest

from pmsi.paper import TABLES, PaperTable, Row, Slip
from pmsi.recipe import METHODS

# What the paper prints, line by line.
PRINTED = {
    1: "200 5994 5794 / 196 8144 8041 / 100 6667 3333",
    2: "- - - - 84.2 84.2 84.3 / - - - 84.7 84.5 84.9 85.2 / - - 82.9 84.8 84.3 85.5 85.9"
    " / - 80.5 83.3 84.7 83.9 85.1 85.7 / 74.2 81.7 83.0 84.5 84.3 84.9 85.1",
    3: "81.5 - / 85.1 - / 85.2 85.5 / 85.5 85.9 / 86.4 86.8 / 86.6 87.0",
    4: "85.5 85.9 / 85.1 85.3 / 85.6 86.0 / 85.1 85.1 / 86.3 86.6 / 86.6 87.0",
    5: "83.2 - / 85.1 - / 84.5 - / 85.7 - / 85.9 86.5 / 86.6 87.0",
    6: "81.5 90.9 88.9 / 87.0 (+5.5) 94.0 (+3.1) 91.6 (+2.7) / 82.0 90.5 87.5 / 86.8 (+4.8) 93.4 (+2.9) 90.2 (+2.7)"
    " / 84.1 91.8 89.7 / 88.0 (+3.9) 94.2 (+2.4) 91.7 (+2.0)",
    7: "81.5 87.0 90.9 94.0 88.9 91.6"
    " / 14.1 (-77.4) 59.9 (-27.1) 69.7 (-21.2) 79.3 (-14.7) 64.7 (-24.2) 73.9 (-17.7)"
    " / 22.2 (-59.3) 78.6 (-18.4) 75.0 (-15.9) 86.5 (-7.5) 82.6 (-6.3) 86.6 (-5.0)",
}


def print_row(row: Row) -> str:
    words = ["-" if value is None else str(value) for value in row.values]
    if row.changes:
        words = [f"{word} ({change:+.1f})" for word, change in zip(words, row.changes, strict=True)]
    return " ".join(words)


@pytest.mark.parametrize("number", TABLES)
def test_figures_are_those_printed(number: int) -> None:
    assert " / ".join(print_row(row) for row in TABLES[number].rows.values()) == PRINTED[number]


def test_lines_are_as_long_as_their_tables() -> None:
    assert list(TABLES) == [1, 2, 3, 4, 5, 6, 7]
    for table in TABLES.values():
        assert {len(row.values) for row in table.rows.values()} == {len(table.columns)}
        assert all(row.base is None or row.base in table.rows for row in table.rows.values())


def test_tables_agree_where_they_show_the_same_run() -> None:
    full = [TABLES[number].rows[row].values for number, row in ((3, "pmr"), (4, "rmg"), (5, "pmsi"))]
    assert set(full) == {(86.6, 87.0)}
    without_rmg = TABLES[2].rows["3"].values[-2:]
    assert without_rmg == TABLES[3].rows["pm"].values == TABLES[4].rows["none"].values
    baseline = TABLES[6].rows["mobilenet_v2"].values
    assert TABLES[7].rows["clean"].values[::2] == baseline
    assert TABLES[7].rows["clean"].values[1::2] == TABLES[6].rows["mobilenet_v2 pmsi"].values
    assert TABLES[3].figure("baseline", "Concat") == baseline[0]
    assert tuple(TABLES[4].rows) == METHODS


def test_slips_of_table_7_are_found_and_no_others() -> None:
    assert TABLES[7].list_slips() == [
        Slip("color_jitter", "CUB baseline", printed=-77.4, computed=-67.4),
        Slip("gaussian_noise", "CUB RMG-PMSI", printed=-18.4, computed=-8.4),
    ]
    assert [number for number, table in TABLES.items() if table.list_slips()] == [7]


def test_a_slip_is_found_by_its_sum() -> None:
    rows = {"a": Row("a", (10.0, 20.0)), "b": Row("b", (12.5, 19.0), "a", (2.5, 1.0))}
    table = PaperTable("T", "%", "row", ("x", "y"), rows)
    assert table.change("b", "x") == 2.5
    assert table.list_slips() == [Slip("b", "y", printed=1.0, computed=-1.0)]


def test_what_the_paper_does_not_give_is_refused() -> None:
    with pytest.raises(ValueError, match="has no row 'puzzle'; choose one of none, cutmix, "):
        TABLES[4].figure("puzzle", "Mix")
    with pytest.raises(ValueError, match="has no column 'mix'; choose one of Concat, Mix"):
        TABLES[4].figure("rmg", "mix")
    with pytest.raises(ValueError, match="gives no figure for baseline, Mix"):
        TABLES[3].figure("baseline", "Mix")
    with pytest.raises(ValueError, match="compares clean with no other row"):
        TABLES[7].change("clean", "CUB RMG-PMSI")
