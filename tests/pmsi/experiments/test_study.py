"""Tables as lists of runs: shared, held by one process at a time, continued, and set beside the paper's."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from filelock import FileLock

from bench import paper_tables
from pmsi.cli.commands import main
from pmsi.data.dataset import Dataset
from pmsi.experiments.folder import LOCK, FolderBusyError, read_predictions
from pmsi.experiments.run import train_run
from pmsi.experiments.source import Source
from pmsi.experiments.study import reproduce
from pmsi.experiments.tables import NAMES, Name, name_run, rival_recipe, table_recipes
from pmsi.models.registry import RIVAL_RECIPES
from pmsi.paper import TABLES
from pmsi.recipe import RECIPES, Recipe
from pmsi.report.page import list_parts, write_page
from tests.helpers.small_run import RECIPE, Watch, make_backbone, make_dataset, make_fabric

SHORT = replace(RECIPE, epochs=1, resize=68, crop=64)


@pytest.fixture(autouse=True)
def _small_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pmsi.models.registry.make_backbone", lambda *_, **__: make_backbone())


def ask(folder: Path, *names: Name, watch: Callable[..., Any] = lambda *_: Watch(None)) -> dict[str, Any]:
    how: dict[str, Any] = {"seeds": (0,), "folder": folder, "fabric": make_fabric(), "watch": watch}
    return reproduce(names, Source(), load, SHORT, "tiny", **how)


def load(recipe: Recipe) -> Dataset:
    return make_dataset(side=recipe.resize)


class Silent(Watch):
    """Of runs with any number of phases."""

    def on_batch(self, *_: Any) -> None:
        self.batches += 1


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_the_papers(name: Name) -> None:
    rows = table_recipes(name, RECIPES["quick"])
    if name == "figure4":
        assert list(rows) == ["pmsi"]
    elif name == "table7":
        assert list(rows) == ["baseline", "pmsi"]
    elif name.startswith("table"):
        assert set(TABLES[int(name[-1])].rows) == {*rows} - {"cnl"}
    else:
        assert next(iter(rows)) == "rmg"


def test_each_row_changes_what_it_says() -> None:
    base = RECIPES["quick"]
    rows = table_recipes("table3", base)
    switches = {
        row: (recipe.network, recipe.interaction, recipe.progressive, recipe.augmentation)
        for row, recipe in rows.items()
    }
    assert switches == {
        "baseline": ("baseline", False, False, "none"),
        "m": ("pmsi", True, False, "none"),
        "p": ("pmsi", False, True, "none"),
        "pm": ("pmsi", True, True, "none"),
        "pr": ("pmsi", False, True, "rmg"),
        "pmr": ("pmsi", True, True, "rmg"),
    }
    assert [recipe.stages for recipe in table_recipes("table2", base).values()] == [1, 2, 3, 4, 5]
    assert {recipe.augmentation for recipe in table_recipes("table2", base).values()} == {"none"}
    assert rows["pm"] == table_recipes("table4", base)["none"] == table_recipes("table2", base)["3"]
    assert rows["pmr"] == table_recipes("table4", base)["rmg"] == table_recipes("table5", base)["pmsi"]
    assert rows["pmr"] == table_recipes("table6", base)["mobilenet_v2 pmsi"] == table_recipes("figure4", base)["pmsi"]
    assert {recipe.backbone for recipe in table_recipes("table6", base).values()} == {
        "mobilenet_v2",
        "resnet18",
        "resnet34",
    }


@pytest.mark.parametrize("name", RIVAL_RECIPES)
def test_rivals_keep_their_own_recipes_where_the_budget_is_the_papers(name: Any) -> None:
    own = rival_recipe(name, RECIPES["paper"])
    assert own == replace(RECIPES["paper"], network=name, **RIVAL_RECIPES[name])
    short = rival_recipe(name, RECIPES["quick"])
    assert (short.network, short.epochs, short.resize, short.crop) == (name, 4, 110, 96)
    assert short.lr_backbone == RECIPES["quick"].lr_backbone
    assert short.freeze_epochs <= 3
    if name in ("bcnn", "hbp"):
        assert short.lr_new / short.lr_backbone == pytest.approx(100)


def test_runs_are_named_by_all_their_settings() -> None:
    names = {name_run(replace(SHORT, dropout=dropout), seed) for dropout in (0.5, 0.1) for seed in (0, 1)}
    assert len(names) == 4
    assert name_run(SHORT, 0) == name_run(replace(SHORT), 0)


def test_shared_runs_are_trained_once_and_found_again(tmp_path: Path) -> None:
    trained: list[str] = []

    def watch(title: str, *_: Any) -> Watch:
        trained.append(title)
        return Silent()

    results = ask(tmp_path, "table3", "table4", watch=watch)
    assert len(trained) == 10  # of 12 rows, two are in both
    assert {name: list(rows) for name, rows in results["tables"].items()} == {
        "table3": list(TABLES[3].rows),
        "table4": list(TABLES[4].rows),
    }
    shared = (results["tables"]["table3"]["pmr"], results["tables"]["table4"]["rmg"])
    assert shared[0] == shared[1]
    assert json.loads((tmp_path / "results.json").read_text()) == results
    again = ask(tmp_path, "table3", "table4", watch=watch)
    assert len(trained) == 10
    assert again["tables"] == results["tables"]
    with pytest.raises(ValueError, match=r"recipe.dropout is 0.5 there, 0.1 was asked for"):
        reproduce(
            ["table3"],
            Source(),
            load,
            replace(SHORT, dropout=0.1),
            "tiny",
            seeds=(0,),
            folder=tmp_path,
            fabric=make_fabric(),
            watch=watch,
        )


def test_the_page_shows_paper_and_ours(tmp_path: Path) -> None:
    results = ask(tmp_path, "table2", "table3", "table7", "figure4", watch=lambda *_: Silent())
    dataset = load(SHORT)
    parts = list_parts(results, dataset, SHORT, tmp_path)
    table, verdicts = parts["table3"]
    rows = {row[0]: row[1:] for row in table.rows}
    ours = results["tables"]["table3"]
    assert rows["+ P & M & R"] == ("86.6", "87.0", f"{ours['pmr'][0]['concat']:.1f}", f"{ours['pmr'][0]['mix']:.1f}")
    assert rows["+ M"] == ("85.1", "-", f"{ours['m'][0]['concat']:.1f}", "-")  # its stages are not trained
    assert [row[0] for row in verdicts.rows] == [f"{row} vs baseline" for row in ("m", "p", "pm", "pr", "pmr")]
    staged = dict(zip(parts["table2"][0].head, parts["table2"][0].rows[2], strict=True))
    shown = [staged[f"ours S{k}"] for k in (3, 4, 5)]
    assert shown == [f"{one:.1f}" for one in results["tables"]["table2"]["3"][0]["stages"]]
    assert (staged["ours S1"], staged["ours S2"]) == ("-", "-")
    assert len(results["robustness"]["pmsi"][0]) == 4
    write_page(results, dataset, SHORT, tmp_path, Source(), make_fabric())
    page = (tmp_path / "report.html").read_text()
    for text in ("Table II", "Table VII", "Grad-CAM", "stage N-2", "not the paper", "data:image/png"):
        assert text in page, text
    assert "http://" not in page
    markdown = paper_tables.render("tables.json", "table3", folder=tmp_path)
    assert f"\n| + P & M & R | {' | '.join(rows['+ P & M & R'])} |\n" in markdown
    assert "R must work with P." in markdown
    assert "Random pixels. Recipe `tiny`; random weights, seed 0, last epoch; cpu" in markdown
    assert "vs baseline" in markdown
    first = paper_tables.render("tables.json", "table3", first_only=True, folder=tmp_path)
    assert "vs baseline" not in first
    differences = paper_tables.render_differences("tables.json", folder=tmp_path)
    assert "\n| crop | 448 | 64 |\n" in differences


def test_predictions_are_those_that_are_trained(tmp_path: Path) -> None:
    results = ask(tmp_path, "table3", watch=lambda *_: Silent())
    recipes = table_recipes("table3", SHORT)
    for row, what in (("m", "concat"), ("pmr", "mix")):
        labels, found = read_predictions(tmp_path, recipes[row], results["tables"]["table3"][row])
        stored = json.loads((tmp_path / name_run(recipes[row], 0) / "predictions.json").read_text())
        assert found.tolist() == [stored[what]]
        assert torch.equal(labels, load(SHORT).test.labels)


def test_a_run_that_another_process_is_at_is_refused(tmp_path: Path) -> None:
    recipe = replace(SHORT, augmentation="none")
    (tmp_path / "run").mkdir()
    unfinished = tmp_path / "run" / ".last.ckpt.0123.part"
    unfinished.touch()
    how: dict[str, Any] = {"seed": 0, "folder": tmp_path / "run", "fabric": make_fabric(), "watch": Silent()}
    with FileLock(tmp_path / "run" / LOCK), pytest.raises(FolderBusyError, match="another process is training in"):
        train_run(Source(), load(recipe), recipe, **how)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {LOCK, unfinished.name}  # theirs, as it may be
    assert train_run(Source(), load(recipe), recipe, **how)["seed"] == 0
    assert not unfinished.exists()  # of a process that was killed


def hold_and_finish(place: Path, theirs: Path, held: Any, go: Any) -> None:
    """In another process: at the run until told to be done with it."""
    with FileLock(place / LOCK):
        held.set()
        go.wait(60)
        for name in ("config.json", "predictions.json", "last.ckpt", "result.json"):
            (place / name).write_bytes((theirs / name).read_bytes())


def test_busy_runs_are_waited_for_and_not_trained_twice(tmp_path: Path) -> None:
    """Somebody else is at one of two runs until the other one begins."""
    run = name_run(table_recipes("table7", SHORT)["baseline"], 0)
    ask(tmp_path / "theirs", "table7", watch=lambda *_: Silent())
    place = tmp_path / "study" / run
    place.mkdir(parents=True)
    (tmp_path / "study/config.json").write_bytes((tmp_path / "theirs/config.json").read_bytes())
    context = multiprocessing.get_context("fork")
    held, go = context.Event(), context.Event()
    other = context.Process(target=hold_and_finish, args=(place, tmp_path / "theirs" / run, held, go))
    other.start()
    assert held.wait(60)

    def watch(title: str, *_: Any) -> Watch:
        if title == "table7 pmsi, seed 0":
            go.set()
        return Silent()

    ask(tmp_path / "study", "table7", watch=watch)
    other.join(60)
    assert other.exitcode == 0
    found = json.loads((place / "result.json").read_text())
    assert found == json.loads((tmp_path / "theirs" / run / "result.json").read_text())  # times and all


def hold_and_measure(place: Path, kept: str, held: Any, go: Any) -> None:
    """In another process: measuring robustness until told to be done with it."""
    with FileLock(place / LOCK):
        held.set()
        go.wait(60)
        (place / "robustness.json").write_text(kept)


def test_robustness_is_measured_by_one_process(tmp_path: Path) -> None:
    run = tmp_path / name_run(table_recipes("table7", SHORT)["baseline"], 0)
    first = ask(tmp_path, "table7", watch=lambda *_: Silent())
    (run / "robustness.json").unlink()
    theirs = {name: {"concat": 1.0, "mix": 2.0} for name in first["robustness"]["baseline"][0]}
    context = multiprocessing.get_context("fork")
    held, go = context.Event(), context.Event()
    other = context.Process(target=hold_and_measure, args=(run, json.dumps(theirs), held, go))
    other.start()
    assert held.wait(60)

    def load_and_go(recipe: Recipe) -> Dataset:
        dataset = load(recipe)
        if recipe.network == "baseline":  # next it is measured
            go.set()
        return dataset

    how: dict[str, Any] = {"seeds": (0,), "folder": tmp_path, "fabric": make_fabric(), "watch": pytest.fail}
    again = reproduce(["table7"], Source(), load_and_go, SHORT, "tiny", **how)
    other.join(60)
    assert again["robustness"] == {**first["robustness"], "baseline": [theirs]}


def test_a_folder_of_weights_has_a_file_for_each_backbone(tmp_path: Path) -> None:
    for name in ("mobilenet_v2_imagenet.pth", "resnet18.pth", "resnet34-b627a593.pth"):
        (tmp_path / name).touch()
    source = Source(weights=str(tmp_path))
    assert source.find_weights("resnet34") == str(tmp_path / "resnet34-b627a593.pth")
    assert source.find_weights("mobilenet_v2") == str(tmp_path / "mobilenet_v2_imagenet.pth")
    with pytest.raises(FileNotFoundError, match=r"has no file resnet50\*.pth; put it there, or give one file"):
        source.find_weights("resnet50")
    assert Source(weights="imagenet").find_weights("resnet18") == "imagenet"


def test_weights_that_do_not_fit_a_backbone_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    file = tmp_path / "mobilenet_v2.pth"
    torch.save(torchvision.models.mobilenet_v2().state_dict(), file)
    for weights, error, message in (
        (file, ValueError, "it must hold those of resnet18"),
        (file.parent, FileNotFoundError, r"has no file resnet18\*\.pth"),
    ):
        with pytest.raises(error, match=message):
            reproduce(
                ["table6"],
                Source(weights=str(weights)),
                lambda _: pytest.fail("the data were read"),
                SHORT,
                "tiny",
                seeds=(0,),
                folder=tmp_path / "run",
                fabric=make_fabric(),
                watch=lambda *_: pytest.fail("a run was begun"),
            )
    assert not (tmp_path / "run").exists()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "reproduce table7 --resize 72 --crop 64 --feature-width 16 --hidden-width 8 --batch-size 64 --epochs 1"
    run = tmp_path / "run"
    assert main([*words.split(), "--device", "cpu", "--run", str(run)]) == 0
    said = capsys.readouterr().out
    assert json.loads(said.splitlines()[-1]) == {"results": str(run / "results.json")}
    assert "colour jitter" in said
    assert (run / "report.html").exists()
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "table9"])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "table2" in said
    assert "figure4" in said


def test_a_wide_table_is_not_cut_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "reproduce table2 --resize 72 --crop 64 --feature-width 16 --hidden-width 8 --batch-size 64 --epochs 1"
    assert main([*words.split(), "--device", "cpu", "--run", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    found = json.loads((tmp_path / "run" / "results.json").read_text())["tables"]["table2"]["5"][0]
    (line,) = [line for line in said.splitlines() if "{5, 4, 3, 2, 1} / 5" in line]
    for accuracy in (74.2, 84.9, 85.1, *found["stages"], found["concat"], found["mix"]):
        assert f" {accuracy:.1f} " in line
    assert "…" not in said


def test_describe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "--network", "baseline", "--no-progressive", "--augmentation", "none"]) == 2
    assert "network baseline has no interaction, so it needs interaction=False" in capsys.readouterr().err
    assert main(["describe", "--crop", "64", "--resize", "72", "--classes", "5"]) == 0
    assert "receptive field" in capsys.readouterr().out
