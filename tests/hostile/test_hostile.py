"""Hostile inputs are refused in one line or survived; nothing they hold is run, and nothing is left half written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.case import Case, carry_out
from tests.hostile.plans import PLANS
from tests.hostile.table import TABLE


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{where}: {case.what}") for where, cases in TABLE.items() for case in cases]
)
def test_a_hostile_input_is_refused_in_one_line_or_survived(case: Case, tmp_path: Path) -> None:
    kinds = (ValueError, TypeError) if case in PLANS else (ValueError, OSError)
    carry_out(case, tmp_path, kinds)
