"""Settings as they are typed: every one explained, under a theme, with the default of the recipe that was named."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from pmsi.cli.commands import main
from pmsi.cli.options import Common, Compare, ComputeOptions, Evaluate, Reproduce, Train, parse
from pmsi.cli.predict import read_help
from pmsi.experiments.source import Source
from pmsi.recipe import METHODS, RECIPES, Recipe, RecipeName


def read_page(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ["train", "compare"])
@pytest.mark.parametrize("name", RECIPES)
def test_help_names_every_setting_with_its_default(
    capsys: pytest.CaptureFixture[str], command: str, name: RecipeName
) -> None:
    page = re.sub(r"[│╭╮╰╯─]", " ", read_page(capsys, command, "--recipe", name))
    page = " ".join(re.sub(r"(?m)^ *\w+ options *$", "", page).split())  # without the headings of themes
    texts = {text.split()[0].strip(","): text for text in re.split(" (?=--)", page)}
    defaults = {field.name: field.default for kind in (Source, ComputeOptions) for field in fields(kind)}
    defaults |= RECIPES[name].to_dict()
    for field, default in defaults.items():
        text = texts[f"--{'no-' if isinstance(default, bool) else ''}{field.replace('_', '-')}"]
        shown = f"'{default}'" if isinstance(default, Path) else default
        assert text.rstrip().endswith(f"(default: {shown})"), text


def test_every_setting_is_explained() -> None:
    """Each field of the typed recipe and of the commands is followed by its help."""
    groups = {"source", "settings", "compute"}  # their own fields are
    for kind in (Recipe, Source, ComputeOptions, Common, Compare, Train, Reproduce, Evaluate):
        own = {field.name for field in fields(kind)} - groups
        inherited = {field.name for field in fields(Common)} if kind in (Compare, Train, Reproduce) else set()
        explained = read_help(kind)
        assert own - inherited == explained.keys() - groups, kind
        assert all(explained.values())


@pytest.mark.parametrize("command", ["train", "reproduce"])
def test_settings_stand_under_their_themes(capsys: pytest.CaptureFixture[str], command: str) -> None:
    page = read_page(capsys, command)
    lines = re.sub(r"[│╭╮╰╯─]", " ", page)
    _, *parts = re.split(r"(?m)^ *(\w+) options *$", lines)
    boxes = dict(zip(parts[::2], parts[1::2], strict=True))
    wanted = {
        "data": ("--root", "--hold-out", "--weights"),
        "network": ("--backbone", "--stages", "--stem-stride"),
        "images": ("--resize", "--crop"),
        "schedule": ("--epochs", "--freeze-epochs", "--schedule", "--warmup"),
        "optimisation": ("--lr-new", "--ema-decay"),
        "augmentation": ("--augmentation", "--mix-scope", "--snapmix-p"),
        "evaluation": ("--test-whole",),
        "computing": ("--device", "--precision", "--compile"),
    }
    assert boxes.keys() == wanted.keys()
    for theme, names in wanted.items():
        for name in names:
            assert re.search(rf"(?m)^ *(--[\w-]+, )?{name}\b", boxes[theme]), (theme, name)


def test_settings_are_typed_flat_and_start_from_the_recipe_that_is_named() -> None:
    command = parse(["train", "--recipe", "paper", "--epochs", "7", "--feature-width", "64", "--device", "cpu"])
    assert isinstance(command, Train)
    assert command.settings.to_dict() == {**RECIPES["paper"].to_dict(), "epochs": 7, "feature_width": 64}
    assert command.compute.device == "cpu"
    assert isinstance(parse(["train"]), Train)
    default = parse(["compare", "--data", "cub", "--root", "birds"])
    assert isinstance(default, Compare)
    assert default.settings == RECIPES["quick"]
    assert (default.source.root, default.methods) == (Path("birds"), METHODS)


@pytest.mark.parametrize(
    "words", ["compare --methods rgm", "compare --recipe fast", "compare --lr 1", "guess", "", "evaluate"]
)
def test_words_that_do_not_exist(capsys: pytest.CaptureFixture[str], words: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert re.fullmatch(r"pmsi \d+\.\d+.*\n", capsys.readouterr().out)


def test_methods_are_the_rows_of_the_table() -> None:
    assert METHODS == ("none", "cutmix", "mixup", "snapmix", "jigsaw", "rmg")
