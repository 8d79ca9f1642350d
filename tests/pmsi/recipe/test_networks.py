"""Names of networks: each has a class of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from pmsi.models.registry import network_class
from pmsi.recipe import RECIPES
from pmsi.recipe.networks import NETWORKS, NetworkName


def test_every_name_has_a_network_of_its_own() -> None:
    assert set(get_args(NetworkName)) == set(NETWORKS)
    classes = [network_class(name) for name in NETWORKS]
    assert len(set(classes)) == len(classes)
    with pytest.raises(ValueError, match=r"recipe: network must be one of pmsi, baseline, .*; got 'vgg'"):
        replace(RECIPES["paper"], network="vgg")  # type: ignore[arg-type]
