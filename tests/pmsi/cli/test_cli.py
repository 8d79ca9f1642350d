"""The `pmsi` command as it is typed: help, runs, continuation, and one clear line for each mistake."""

from __future__ import annotations

import ast
import itertools
import json
import re
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from pmsi import recipe as config
from pmsi.cli import options
from pmsi.cli.commands import main
from pmsi.cli.options import ComputeOptions
from pmsi.experiments import source
from pmsi.experiments.source import Source
from pmsi.recipe import METHODS, RECIPES, Recipe, RecipeName
from pmsi.training.trainer import Trainer
from tests.helpers.small_run import read_folder

TINY = [
    *("--resize", "36", "--crop", "32", "--feature-width", "16", "--hidden-width", "8"),
    *("--batch-size", "4", "--epochs", "2", "--device", "cpu"),
]


def ask(command: str, root: Path, run: Path, *more: str) -> int:
    where = ["--root", str(root), "--run", str(run), "--cache", str(run.parent / "kept")]
    return main([command, "--data", "folder", *where, *TINY, *more])


def read_help(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ["train", "compare"])
@pytest.mark.parametrize("name", RECIPES)
def test_help_names_every_setting_with_its_default(
    capsys: pytest.CaptureFixture[str], command: str, name: RecipeName
) -> None:
    page = " ".join(re.sub(r"[│╭╮╰╯─]", " ", read_help(capsys, command, "--recipe", name)).split())
    texts = {text.split()[0].strip(","): text for text in re.split(" (?=--)", page)}
    defaults = {field.name: field.default for kind in (Source, ComputeOptions) for field in fields(kind)}
    defaults |= RECIPES[name].to_dict()
    for field, default in defaults.items():
        text = texts[f"--{'no-' if isinstance(default, bool) else ''}{field.replace('_', '-')}"]
        shown = f"'{default}'" if isinstance(default, Path) else default
        assert text.rstrip().endswith(f"(default: {shown})"), text


def test_every_setting_is_explained() -> None:
    """Each field of the typed recipe and of the commands is followed by its help."""
    checked, typed = 0, {"Recipe", "Source", "Engine", "Common", "Compare", "Train"}
    for module in (config, source, options):
        assert module.__file__ is not None
        for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
            if isinstance(node, ast.ClassDef) and node.name in typed:
                for field, text in itertools.pairwise(node.body):
                    if isinstance(field, ast.AnnAssign) and "_Flat" not in ast.unparse(field.annotation):
                        assert isinstance(text, ast.Expr), f"{node.name}: {ast.unparse(field)}"
                        checked += 1
    assert checked >= len(fields(Recipe)) + len(fields(Source)) + 5


@pytest.mark.usefixtures("small_backbone")
def test_compare_and_continue(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert ask("compare", photos, run, "--methods", "none", "rmg") == 0
    first = capsys.readouterr()
    assert first.err == ""
    assert first.out.count("epoch 1/2") == first.out.count("epoch 2/2") == 2
    assert f"Report: {run / 'report.html'}" in first.out
    results = json.loads((run / "results.json").read_text())
    assert [row["method"] for row in results["rows"] if row["runs"]] == ["none", "rmg"]
    for row in results["rows"]:
        for found in row["runs"]:
            assert f"{found['mix']:.1f}" in first.out
    checkpoints = {name: bits for name, bits in read_folder(run).items() if name.endswith("last.ckpt")}
    assert ask("compare", photos, run, "--methods", "none", "rmg") == 0
    assert "epoch" not in capsys.readouterr().out.partition("Table IV")[0]
    assert checkpoints.items() <= read_folder(run).items()


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize(
    ("words", "images"), [("--augmentation jigsaw", 6), ("--hold-out 4 --ema-decay 0.9 --test-whole", 3)]
)
def test_train_and_evaluate_agree(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, images: int
) -> None:
    run = tmp_path / "run"
    assert ask("train", photos, run, "--seed", "3", *words.split()) == 0
    trained = capsys.readouterr().out
    assert "Checkpoint: " in trained
    result = json.loads((run / "result.json").read_text())
    assert f"Concat {result['concat']:.1f} %, Mix {result['mix']:.1f} % of {images} test images" in trained
    assert main(["evaluate", str(run / "last.ckpt"), "--cache", str(tmp_path / "kept")]) == 0
    said = capsys.readouterr().out
    assert len(list((tmp_path / "kept").iterdir())) == 2  # decoded training and test images
    assert f"Concat   {result['concat']:.2f} %" in said
    assert f"Mix      {result['mix']:.2f} % of {images} test images" in said
    for stage, accuracy in zip((3, 4, 5), result["stages"], strict=True):
        assert f"Stage {stage}  {accuracy:.2f} %" in said


@pytest.mark.usefixtures("small_backbone")
def test_evaluate_on_other_data(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("train", photos, tmp_path / "run") == 0
    checkpoint = str(tmp_path / "run/last.ckpt")
    for image in (photos / "test").rglob("0[345].png"):
        image.unlink()
    kept = ["--cache", str(tmp_path / "kept")]
    assert main(["evaluate", checkpoint, "--root", str(photos), *kept]) == 0
    assert "of 3 test images" in capsys.readouterr().out
    for part in ("train", "test"):
        (photos / part / "c").rename(tmp_path / part)
    assert main(["evaluate", checkpoint, *kept]) == 2
    assert "knows 3 classes, folder has 2" in capsys.readouterr().err


@pytest.mark.usefixtures("small_backbone")
def test_unreadable_image(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = photos / "train/b/01.png"
    broken.write_bytes(broken.read_bytes()[:60])
    run = tmp_path / "run"
    assert ask("compare", photos, run, "--methods", "none") == 2
    assert str(broken) in capsys.readouterr().err
    assert not run.exists()
    assert ask("compare", photos, run, "--methods", "none", "--skip-unreadable") == 0
    results = json.loads((run / "results.json").read_text())
    assert results["data"]["train_images"] == 11
    assert [Path(name).name for name in results["data"]["skipped"]] == ["01.png"]


BAD = {
    "--epochs 0": "epochs must be above 0, got 0",
    "--crop 40": r"resize must lie in 40\.\.inf, got 36",
    "--stages 6": r"stages must lie in 1\.\.5, got 6",
    "--mixup-p 1.5": r"mixup_p must lie in 0\.\.1, got 1\.5",
    "--cutmix-alpha 0": "cutmix_alpha must be above 0, got 0",
    "--batch-size 1": r"batch_size must lie in 2\.\.inf, got 1",
    "--batch-size 13": "12 training images do not fill a batch of 13; lower --batch-size",
    "--augmentation rmg --no-progressive": "rmg makes the inputs of the phases, so it needs progressive=True",
    "--weights nowhere.pth": "weights: no file nowhere.pth; give a file, 'imagenet' or 'none'",
    "--weights pyproject.toml": "is damaged, or no file of tensors that torch can load safely",
    "--root nowhere": "there is no folder nowhere; --root must be the folder of the images",
    "--data cub": "images.txt",
    "--data typefaces": "typefaces: takes no --root",
    "--seed -1": "--seed: must be 0 or above, got -1",
}


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize("words", BAD)
def test_mistake_gets_one_line(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    monkeypatch.setattr(Trainer, "run", lambda *_: pytest.fail("training began"))
    assert ask("train", photos, tmp_path / "run", *words.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(BAD[words], line), line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--seeds", "--seeds: give one number or more, each 0 or above"),
        ("--seeds 0 -2", r"each 0 or above, got \[0, -2\]"),
        ("--methods", "--methods: name one row or more"),
    ],
)
def test_rows_and_seeds_are_checked(capsys: pytest.CaptureFixture[str], words: str, message: str) -> None:
    assert main(["compare", *words.split()]) == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_gpu_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--device", "cuda", "--run", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--device cuda: this machine cannot offer it" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words", ["compare --methods rgm", "compare --recipe fast", "compare --lr 1", "guess", "", "evaluate"]
)
def test_words_that_do_not_exist(capsys: pytest.CaptureFixture[str], words: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err


@pytest.mark.usefixtures("small_backbone")
def test_run_of_another_recipe_is_refused_before_images_are_read(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    assert ask("compare", photos, run, "--methods", "none") == 0
    before = read_folder(run)
    capsys.readouterr()
    monkeypatch.setattr(Source, "load", lambda *_: pytest.fail("images were read"))
    assert ask("compare", photos, run, "--dropout", "0.25") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"belongs to another run: recipe.dropout is {RECIPES['quick'].dropout} there, 0.25 was asked for" in line
    assert read_folder(run) == before


def test_evaluate_of_what_is_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(tmp_path / "last.ckpt")]) == 2
    assert "there is no file" in capsys.readouterr().err
    (tmp_path / "last.ckpt").write_text("words")
    assert main(["evaluate", str(tmp_path / "last.ckpt")]) == 2
    assert "is damaged, or no file of tensors" in capsys.readouterr().err


def test_ctrl_c_in_another_process(photos: Path, tmp_path: Path) -> None:
    """A real signal: exit code 130, two lines, no traceback, and the same command finds the finished epochs."""
    words = [
        "train",
        "--data",
        "folder",
        "--root",
        str(photos),
        "--run",
        str(tmp_path / "run"),
        "--cache",
        "None",
        *TINY,
    ]
    words += ["--epochs", "10000"]
    script = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"from pmsi.cli import main; sys.exit(main({words!r}))"
    )
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch 2/10000" in line:
            process.send_signal(signal.SIGINT)
            break
    rest = process.stdout.read()
    process.stdout.close()
    assert process.wait() == 130
    assert "Traceback" not in rest
    assert "Stopped. All that was done is saved; the same command goes on from there." in rest
    metrics = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in metrics] == list(range(1, len(metrics) + 1))
    assert len(metrics) >= 2


def test_methods_are_the_rows_of_the_table() -> None:
    assert METHODS == ("none", "cutmix", "mixup", "snapmix", "jigsaw", "rmg")
