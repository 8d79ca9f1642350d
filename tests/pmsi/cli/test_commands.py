"""Commands as they are typed: runs, continuation, pages, and one clear line for each mistake."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pmsi.cli.commands import main
from pmsi.experiments.source import Source
from pmsi.recipe import RECIPES
from pmsi.runtime.checkpoints import load_checkpoint, save_checkpoint
from pmsi.training.trainer import Trainer
from tests.helpers.small_run import (
    RECIPE,
    make_backbone,
    read_folder,
)

TINY = [
    *("--resize", "36", "--crop", "32", "--feature-width", "16", "--hidden-width", "8"),
    *("--batch-size", "4", "--epochs", "2", "--device", "cpu"),
]


def ask(command: str, root: Path, run: Path, *more: str) -> int:
    where = ["--root", str(root), "--run", str(run), "--cache", str(run.parent / "kept")]
    return main([command, "--data", "folder", *where, *TINY, *more])


@pytest.mark.usefixtures("small_backbone")
def test_compare_and_continue(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert ask("compare", photos, run, "--methods", "none", "rmg") == 0
    first = capsys.readouterr()
    assert first.err == ""
    assert first.out.count("epoch 1/2") == first.out.count("epoch 2/2") == 2
    assert f"Report: {run / 'report.html'}" in first.out
    results = json.loads((run / "results.json").read_text())
    rows = {row: runs for row, runs in results["tables"]["table4"].items() if runs}
    assert list(rows) == ["none", "rmg"]
    for (found,) in rows.values():
        assert f"{found['mix']:.1f}" in first.out
    last = json.loads(first.out.splitlines()[-1])
    assert [(row["table"], row["method"], row["seed"]) for row in last["rows"]] == [
        ("table4", "none", 0),
        ("table4", "rmg", 0),
    ]
    assert "Learning curves" in (run / "report.html").read_text()
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
    for page, words in (("report.html", "Learning curves"), ("evaluate-folder.html", "All classes")):
        assert f"{result['mix']:.2f}" in (run / page).read_text()
        assert words in (run / page).read_text()
    assert f"Page: {run / 'evaluate-folder.html'}" in said
    assert f"Report: {run / 'report.html'}" in trained


@pytest.mark.usefixtures("small_backbone")
def test_a_test_never_overwrites_the_report_of_its_run(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert ask("train", photos, run) == 0
    before = read_folder(run)
    words = ["evaluate", str(run / "last.ckpt"), "--cache", str(tmp_path / "kept"), "--page"]
    assert main([*words, str(run / "report.html")]) == 2
    assert "is the report of a run; choose another name" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "pages/birds.html")]) == 0
    assert "All classes" in (tmp_path / "pages/birds.html").read_text()
    assert read_folder(run) == before


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
def test_evaluate_goes_by_the_names_of_classes(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask("train", photos, tmp_path / "run") == 0
    kept = ["--cache", str(tmp_path / "kept")]
    predictions = json.loads((tmp_path / "run/predictions.json").read_text())
    state = load_checkpoint(tmp_path / "run/last.ckpt")
    assert state["identity"]["class_names"] == ["a", "b", "c"]

    def test(names: list[str] | None) -> tuple[int, str, str]:
        identity = {name: value for name, value in state["identity"].items() if name != "class_names"}
        identity |= {} if names is None else {"class_names": names}
        save_checkpoint(tmp_path / "other.ckpt", {**state, "identity": identity})
        capsys.readouterr()
        return main(["evaluate", str(tmp_path / "other.ckpt"), *kept]), *capsys.readouterr()

    code, out, _ = test(["c", "a", "b"])
    right = [p == (label + 1) % 3 for p, label in zip(predictions["mix"], predictions["labels"], strict=True)]
    assert code == 0
    assert json.loads(out.splitlines()[-1])["mix"] == pytest.approx(100 * sum(right) / len(right))
    code, out, _ = test(None)  # of a version that kept no names
    assert code == 0
    assert "has no names of its classes" in out
    monkeypatch.setattr("pmsi.data.dataset.decode_images", lambda *_, **__: pytest.fail("an image was read"))
    code, _, error = test(["a", "bee", "c"])
    assert code == 2
    assert error == ("pmsi: the network knows the class 'bee', folder has 'b' instead (1 of 3 classes are others)\n")


@pytest.mark.usefixtures("small_backbone")
def test_home_is_expanded_in_every_path(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shell expands ``--root ~/x``, but not ``--root=~/x``."""
    monkeypatch.setenv("HOME", str(photos.parent))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    where = ["--root=~/photos", "--run=~/run", "--cache=~/kept"]
    assert main(["train", "--data", "folder", *where, *TINY, "--epochs", "1", "--threads", "1"]) == 0
    assert main(["evaluate", "~/run/last.ckpt", "--cache=~/kept", "--page=~/page.html"]) == 0
    assert main(["data", "check", "~/photos", "--sheet=~/sheet.png"]) == 0
    assert main(["train", "--data", "folder", *where, "--run=~/other", *TINY, "--weights=~/none.pth"]) == 2
    assert f"no file {tmp_path / 'none.pth'}" in capsys.readouterr().err
    assert json.loads((tmp_path / "run/config.json").read_text())["root"] == str(photos)
    assert {"kept", "page.html", "run", "sheet.png"} <= {path.name for path in tmp_path.iterdir()}
    assert list((tmp_path / "here").iterdir()) == []
    assert main(["train", "--data", "folder", "--root=~nobody-of-this-name/x"]) == 2
    assert "pmsi: ~nobody-of-this-name/x: " in capsys.readouterr().err


def test_a_busy_machine_is_said_with_the_setting_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pmsi.cli.session.set_threads", lambda asked: f"asked {asked}: this machine is busy")
    assert main(["train", "--data", "folder", "--root", str(tmp_path / "x"), "--threads", "7", "--device", "cpu"]) == 2
    assert "asked 7: this machine is busy" in capsys.readouterr().out


@pytest.mark.usefixtures("small_backbone")
def test_a_run_goes_on_where_its_images_were_moved_to(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, moved = tmp_path / "run", tmp_path / "elsewhere" / "pictures"
    assert ask("train", photos, run, "--stream", "--epochs", "1") == 0
    moved.parent.mkdir()
    shutil.copytree(photos, moved, copy_function=shutil.copyfile)  # which keeps no times
    shutil.rmtree(photos)
    assert ask("train", moved, run, "--stream", "--epochs", "1") == 0
    assert main(["evaluate", str(run / "last.ckpt"), "--cache", "None"]) == 2  # nothing was trained since
    assert f"there is no folder {photos}" in capsys.readouterr().err
    assert main(["evaluate", str(run / "last.ckpt"), "--root", str(moved), "--cache", "None"]) == 0


@pytest.mark.usefixtures("small_backbone")
def test_a_checkpoint_of_another_version_gets_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    identity = {
        "classes": 3,
        "data": "typefaces",
        "root": None,
        **{f"recipe.{k}": v for k, v in RECIPE.to_dict().items()},
    }
    for change, message in (
        ({"recipe.setting_of_next_year": 1}, "the recipe has a setting 'setting_of_next_year', of pmsi "),
        ({"classes": None}, "does not say what it was trained on"),
        ({"classes": 12}, "a.ckpt was written by pmsi .*, and its model does not fit"),
    ):
        changed = {name: value for name, value in {**identity, **change}.items() if (name, value) != ("classes", None)}
        save_checkpoint(tmp_path / "a.ckpt", {"identity": changed})
        assert main(["evaluate", str(tmp_path / "a.ckpt"), "--device", "cpu"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert re.search(message, line), line


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
    "--augmentation rmg --no-progressive": "rmg makes the phases' inputs, so it needs progressive=True",
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


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--grid-epochs", r"regimes: --grid-epochs: give one number or more, each 1 or above, got \[\]"),
        ("--grid-per-class 4 5", "train_per_class is 5, but class a has 4 training images; ask for 4 or fewer"),
    ],
)
def test_a_grid_that_cannot_be_trained_gets_one_line(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    assert ask("reproduce", photos, tmp_path / "run", "regimes", *words.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line), line
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_gpu_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--device", "cuda", "--run", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--device cuda: this machine cannot offer it" in line
    assert not (tmp_path / "run").exists()


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
        f"from pmsi.cli.commands import main; sys.exit(main({words!r}))"
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


@pytest.fixture
def _any_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pmsi.models.registry.make_backbone", lambda *_, **__: make_backbone())


@pytest.mark.usefixtures("_any_backbone")
def test_reproduce(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "reproduce table7 --resize 72 --crop 64 --feature-width 16 --hidden-width 8 --batch-size 64 --epochs 1"
    run = tmp_path / "run"
    assert main([*words.split(), "--device", "cpu", "--run", str(run)]) == 0
    said = capsys.readouterr().out
    last = json.loads(said.splitlines()[-1])
    assert last["results"] == str(run / "results.json")
    assert [row["method"] for row in last["rows"]] == ["baseline", "pmsi"]
    assert "colour jitter" in said
    assert "Table VII" in (run / "report.html").read_text()
    assert json.loads((run / "tables.json").read_text())["tables"].keys() == {"table7"}
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "table9"])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "table2" in said
    assert "figure4" in said


@pytest.mark.usefixtures("_any_backbone")
def test_a_wide_table_is_not_cut_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "reproduce table2 --resize 72 --crop 64 --feature-width 16 --hidden-width 8 --batch-size 24 --epochs 1"
    small = ["--train-per-class", "2", "--device", "cpu", "--run", str(tmp_path / "run")]
    assert main([*words.split(), *small]) == 0
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


@pytest.mark.usefixtures("small_backbone")
def test_the_command_ends_with_a_line_for_scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = "--resize 36 --crop 32 --feature-width 16 --hidden-width 8 --batch-size 16 --epochs 1 --device cpu"
    words = [*tiny.split(), "--train-per-class", "14", "--run", str(tmp_path / "run")]
    assert main(["train", *words, "--profile"]) == 0
    said = capsys.readouterr().out
    end = json.loads(said.splitlines()[-1])
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert {name: end[name] for name in ("concat", "mix", "stages")} == {
        name: result[name] for name in ("concat", "mix", "stages")
    }
    assert Path(end["checkpoint"]).exists()
    assert "Where the time of a step goes" in said
    assert main(["evaluate", end["checkpoint"], "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["mix"] == end["mix"]
