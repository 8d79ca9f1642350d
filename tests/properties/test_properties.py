"""Random cases of every property, the same ones in every run; `make soak` draws others, and more of them."""

from __future__ import annotations

import pytest

from tests.properties import registry
from tests.properties.registry import FAILURES, MACHINE, PROPERTIES, STATEFUL_EXAMPLES


@pytest.mark.parametrize("name", [*PROPERTIES, MACHINE])
def test_random_cases(name: str) -> None:
    examples = STATEFUL_EXAMPLES if name == MACHINE else PROPERTIES[name].examples
    assert registry.search(name, examples) == []


def test_cases_that_failed_once_pass() -> None:
    for path in sorted(FAILURES.glob("*.json")):
        registry.replay(path)
