"""Photographs that both sides train on."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.training.photos import write_photos


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of eight training photographs."""
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder, 8)
    return folder
