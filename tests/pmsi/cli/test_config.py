"""`--config`: a run's own settings come back from its config.json, YAML gives some, and what is typed counts more."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pmsi.cli.config import read_defaults
from pmsi.cli.options import Compare, Train, parse
from pmsi.recipe import RECIPES


def test_a_run_is_repeated_by_its_config(run: Path) -> None:
    first = parse(["train", "--config", str(run / "config.json")])
    assert isinstance(first, Train)
    stored = json.loads((run / "config.json").read_text())
    assert {f"recipe.{name}": value for name, value in first.settings.to_dict().items()}.items() <= stored.items()
    assert (first.settings.crop, first.source.data, first.source.root) == (32, "folder", Path(stored["root"]))
    other = parse(["train", "--config", str(run / "config.json"), "--epochs", "7", "--seed", "3", "--root", "x"])
    assert isinstance(other, Train)
    assert (other.settings.epochs, other.seed, other.source.root) == (7, 3, Path("x"))
    assert other.settings.crop == 32
    comparison = parse(["compare", f"--config={run / 'config.json'}"])
    assert isinstance(comparison, Compare)
    assert comparison.settings == first.settings


def test_weights_of_a_file_are_asked_for(run: Path, tmp_path: Path) -> None:
    stored = json.loads((run / "config.json").read_text()) | {"weights": "a.pth (sha256 0123)"}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    words = ["train", "--config", str(tmp_path / "config.json")]
    with pytest.raises(ValueError, match=r"began with a\.pth \(sha256 0123\); give it with --weights"):
        parse(words)
    command = parse([*words, "--weights", "b.pth"])
    assert isinstance(command, Train)
    assert command.source.weights == "b.pth"


def test_yaml_gives_what_it_names_and_the_recipe_the_rest(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    path = tmp_path / "mine.yaml"
    path.write_text("recipe: few-shot\nepochs: 12\nlr-new: 0.5\ndata: folder\nroot: ~/birds\nseed: 4\n")
    found = read_defaults(path, None, weights_typed=False)
    assert found.settings.to_dict() == RECIPES["few-shot"].to_dict() | {"epochs": 12, "lr_new": 0.5}
    assert (found.source.data, found.source.root, found.seed) == ("folder", Path("~/birds"), 4)
    assert read_defaults(path, "quick", weights_typed=False).settings.crop == RECIPES["quick"].crop


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.json", None, "--config: there is no file"),
        ("a.json", "{", "is damaged"),
        ("a.yaml", "a: [", "is no YAML"),
        ("a.yaml", "- 1", "must hold names and values"),
        ("a.yaml", "epoch: 3", "names epoch, which is no setting"),
        ("a.yaml", "epochs: many", "epochs is 'many'"),
        ("a.yaml", "epochs: 0", "epochs must be"),
        ("a.yaml", "data: 3", "has data = 3, which is no value of that setting"),
        ("a.yaml", "seed: true", "has seed = True"),
        ("a.yaml", "recipe: slow", "names the recipe 'slow'; there are paper"),
        ("a.yaml", "!!python/object/apply:os.system ['true']", "is no YAML"),
        ("a.json", '{"recipe.unknown": 1, "written_by": "pmsi 9"}', "has a setting 'unknown', of pmsi 9"),
    ],
)
def test_files_that_do_not_fit_get_one_line(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        read_defaults(path, None, weights_typed=False)
