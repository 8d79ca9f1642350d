"""A small run and the files that it is exported to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pmsi.cli.commands import main
from tests.helpers.dataset_files import save_image
from tests.helpers.small_run import make_backbone

TINY = "--resize 36 --crop 32 --feature-width 16 --hidden-width 8 --batch-size 4 --epochs 1 --device cpu --cache None"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of a finished run of `pmsi train` on three colours."""
    root = tmp_path_factory.mktemp("exported")
    for place, (name, color) in enumerate({"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}.items()):
        for part, count in (("train", 4), ("test", 2)):
            for number in range(count):
                (root / "photos" / part / name).mkdir(parents=True, exist_ok=True)
                shade = tuple(min(255, level + 7 * number + place) for level in color)
                save_image(root / "photos" / part / name / f"{number}.png", shade, size=(40, 36))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pmsi.models.registry.make_backbone", make_backbone)
        words = ["train", "--data", "folder", "--root", str(root / "photos"), "--run", str(root / "run")]
        assert main([*words, *TINY.split()]) == 0
        yield root / "run"
