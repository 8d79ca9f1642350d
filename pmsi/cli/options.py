"""Commands and settings that can be typed after `pmsi`, and how they are parsed."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from pmsi.cli.config import Defaults, read_defaults
from pmsi.cli.data import Data
from pmsi.cli.predict import Predict, read_help
from pmsi.data.dataset import DataName
from pmsi.deployment.export import ExportFormat, Int8Method
from pmsi.experiments.source import Source
from pmsi.experiments.tables import Choice, Grid
from pmsi.recipe import METHODS, RECIPES, Method, Recipe, RecipeName
from pmsi.runtime.devices import Device, Precision
from pmsi.runtime.files import expand_home
from pmsi.training.loggers import LogName

# Themes of `--help`: a field belongs to the theme that the last field of the recipe named here began.
_BEGINNINGS = {
    "network": "network",
    "resize": "images",
    "batch_size": "schedule",
    "lr_backbone": "optimisation",
    "mix_scope": "augmentation",
}
_EXCEPTIONS = {
    "augmentation": "augmentation",
    "test_whole": "evaluation",
    "test_every": "evaluation",
    "schedule": "schedule",
    "warmup": "schedule",
}


@dataclass(frozen=True)
class ComputeOptions:
    """Settings that change the speed of a run, and its result by rounding alone."""

    device: Device = "auto"
    """Where to compute; under torchrun, each process takes a device of its own."""
    precision: Precision = "auto"
    """Autocast to "bf16" or "fp16", or "32"; "auto" is bf16 on GPUs that have it, and 32 elsewhere."""
    threads: int | None = None
    """Threads of torch on a CPU, of each process; None leaves its own choice, and says so where fewer are faster."""
    compile: bool = False
    """Compile network and loss of every phase: minutes at the start for faster steps."""
    graphs: bool = True
    """On one GPU, replay all phases of a mini-batch as one CUDA graph; not with fp16, nor when compiled."""


_Flat = tyro.conf.arg(name="")
_DataGroup = Annotated[Source, tyro.conf.arg(name="data")]
_ComputeGroup = Annotated[ComputeOptions, tyro.conf.arg(name="computing")]
_RecipeGroups = Annotated[Recipe, _Flat]


@dataclass(frozen=True)
class Common:
    """Settings of every training command."""

    source: _DataGroup = field(default_factory=Source)
    recipe: RecipeName | None = None
    """Where the defaults of the training settings come from; by default "demo" for typefaces, else "quick"."""
    settings: _RecipeGroups = field(default_factory=Recipe)
    run: Path | None = None
    """Folder of the run; by default runs/COMMAND-DATA-RECIPE. The same command continues what is there."""
    compute: _ComputeGroup = field(default_factory=ComputeOptions)
    log: tuple[LogName, ...] = ()
    """Keep curves of every run: TensorBoard in its folder, Weights & Biases, Trackio or MLflow as their own settings
    say (WANDB_MODE=offline, MLFLOW_TRACKING_URI). Each needs the package of its name."""
    config: Path | None = None
    """Take defaults from the config.json of a run, or from YAML with the same names; what is typed counts more."""


@dataclass(frozen=True)
class Compare(Common):
    """Train the rows of Table IV (augmentations) under one recipe, and write a table and a report."""

    methods: tuple[Method, ...] = METHODS
    """Rows to train."""
    seeds: tuple[int, ...] = (0,)
    """One run of every row for each; more can be added later."""
    jobs: int = 1
    """Processes that train rows side by side, with an equal share of the threads each."""


@dataclass(frozen=True)
class Train(Common):
    """Train one network, and write its page."""

    seed: int = 0
    """Of initial weights, order, crops, augmentation and dropout."""
    profile: bool = False
    """Watch a few mini-batches with torch's profiler: a table, and profile.json in the folder of the run."""


@dataclass(frozen=True)
class Reproduce(Common):
    """Train the runs of the paper's tables and figure, or what is missing of them, and set them beside the paper's; any
    number of these may work on one folder at a time."""

    names: Annotated[tuple[Choice, ...], tyro.conf.Positional] = ("all",)
    """Which; "all" are the paper's. "candidates" and "mobile" try changes of training and cheap heads on held-out
    images (--hold-out), "modern" and "mobile-final" compare what was kept; "regimes" varies images and epochs."""
    seeds: tuple[int, ...] = (0,)
    """One run of every row for each; more can be added later."""
    jobs: int = 1
    """Processes that train rows side by side, with an equal share of the threads each."""
    grid_methods: tuple[Method, ...] = Grid.methods
    """Of "regimes": augmentations to compare, each with every number of images and of epochs."""
    grid_per_class: tuple[int, ...] = Grid.per_class
    """Of "regimes": training images of each class, the first ones, in place of --train-per-class."""
    grid_epochs: tuple[int, ...] = Grid.epochs
    """Of "regimes": passes over these images, in place of --epochs."""


@dataclass(frozen=True)
class Describe:
    """Describe a network and its cost: stages, parameters, MACs, receptive fields, and the mosaics that the
    paper's rule allows at each stage."""

    recipe: RecipeName = "paper"
    """Where the defaults of the settings come from."""
    settings: _RecipeGroups = field(default_factory=Recipe)
    classes: int = 200
    """To tell apart."""
    weights: str = "none"
    """Of the backbone, which effective receptive fields depend on: a file, "imagenet", or "none"."""


@dataclass(frozen=True)
class Evaluate:
    """Test a checkpoint: Concat, Mix and every stage; and write a page with all classes."""

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """last.ckpt of a run."""
    data: DataName | None = None
    """Data set; by default the one it was trained on."""
    root: Path | None = None
    """Folder of the data set; by default where it was in training."""
    cache: Path | None = Source.cache
    """Folder that keeps decoded images, as in training."""
    workers: int | None = None
    """Threads that decode images; None is one for each core that may be used."""
    page: Path | None = None
    """Where to write the page; by default evaluate-DATA.html beside the checkpoint."""
    compute: _ComputeGroup = field(default_factory=ComputeOptions)


@dataclass(frozen=True)
class Export:
    """Export a checkpoint for other runtimes, and test each file before it gets its name."""

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """last.ckpt of a run."""
    to: tuple[ExportFormat, ...] = ("onnx",)
    """Formats: ONNX in float32 or int8, torch.export, ExecuTorch, or the tensors alone."""
    out: Path | None = None
    """Folder of the files; by default that of the checkpoint."""
    name: str | None = None
    """Of the files, without suffix; by default NETWORK-DATA."""
    output: Literal["mix", "concat"] | None = None
    """Logits that the answers are made of; by default Mix, and Concat where the stages are not trained."""
    check_images: Path | None = None
    """Folder of images to test with, a folder for each class; by default the test images of the data set."""
    accept_worse: bool = False
    """Keep a file that the paired test calls worse than the checkpoint; its name then says so."""
    int8: Int8Method = "per-channel"
    """Scales of int8 weights; "per-tensor" is what most tools do by default, and ruins narrow networks."""
    data: DataName | None = None
    """Data set whose test images test the files, and whose training images calibrate int8; by default its own."""
    root: Path | None = None
    """Folder of the data set; by default where it was in training."""
    cache: Path | None = Source.cache
    """Folder that keeps decoded images, as in training."""
    workers: int | None = None
    """Threads that decode images; None is one for each core that may be used."""
    compute: _ComputeGroup = field(default_factory=ComputeOptions)


@dataclass(frozen=True)
class Serve:
    """Serve pages on this machine alone: drop photographs to ask a network, and try augmentations on them."""

    model: Annotated[Path, tyro.conf.Positional]
    """last.ckpt of a run, or a file that `pmsi export` wrote; Grad-CAM needs a checkpoint or .safetensors."""
    port: int = 8000
    """Of this machine's own address, 127.0.0.1; 0 takes a free one."""
    threshold: float = 0.5
    """Confidence below which the answer is "not sure", 0 to 1."""
    examples: Path | None = None
    """Folder of example images, a folder for each class; by default the training images of the run beside MODEL."""


Command = Compare | Train | Reproduce | Describe | Evaluate | Predict | Export | Serve | Data


def parse(words: list[str]) -> Command:
    """Turn the words of a command line into a command.

    Two steps, because the recipe that is named gives the other settings their defaults.

    Raises:
        SystemExit: words that are no command or setting, after tyro has said so; or ``--help``.
        ValueError: settings that contradict each other.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--data", default="typefaces")
    for word in ("--recipe", "--config", "--weights"):
        first.add_argument(word)
    known, _ = first.parse_known_args(words)
    name = known.recipe or _choose_recipe(known.data)
    if words[:1] == ["describe"] and known.recipe is None:
        name = Describe.recipe
    settings = next((recipe for key, recipe in RECIPES.items() if key == name), Recipe())  # tyro reports other names
    begin = Defaults(settings, Source(), 0)
    if known.config is not None and words[0] in ("compare", "train", "reproduce"):
        begin = read_defaults(Path(known.config), known.recipe, weights_typed=known.weights is not None)
    given: Any = {"settings": begin.settings, "source": begin.source}
    commands = (
        Annotated[Compare, tyro.conf.subcommand("compare", default=Compare(**given))]
        | Annotated[Train, tyro.conf.subcommand("train", default=Train(**given, seed=begin.seed))]
        | Annotated[Reproduce, tyro.conf.subcommand("reproduce", default=Reproduce(**given))]
        | Annotated[Describe, tyro.conf.subcommand("describe", default=Describe(settings=settings))]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Predict, tyro.conf.subcommand("predict"), tyro.conf.PositionalRequiredArgs]
        | Annotated[Export, tyro.conf.subcommand("export")]
        | Annotated[Serve, tyro.conf.subcommand("serve")]
        | Annotated[Data, tyro.conf.subcommand("data")]
    )
    summary = "RMG-PMSI: train and compare networks for fine-grained recognition. `pmsi --version` says which version."
    registry = ConstructorRegistry()
    registry.struct_rule(_group_recipe)
    with registry:
        flat = (tyro.conf.OmitArgPrefixes,)  # a theme is a heading of the help, not part of a setting's name
        command: Command = expand_paths(tyro.cli(commands, prog="pmsi", description=summary, args=words, config=flat))
        return command


def expand_paths(command: Any) -> Any:
    """Expand ``~`` in every path of a command: a shell does so for ``--root ~/x``, but not for ``--root=~/x``."""
    changed: dict[str, Any] = {}
    for one in fields(command):
        value = getattr(command, one.name)
        if isinstance(value, Path):
            changed[one.name] = expand_home(value)
        elif one.name == "weights":
            changed[one.name] = str(expand_home(Path(value))) if value.startswith("~") else value
        elif is_dataclass(value) and not isinstance(value, Recipe):
            changed[one.name] = expand_paths(value)
    return replace(command, **changed)


def _group_recipe(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Rule of tyro's for `Recipe`: its settings are typed flat, and shown by theme in the help."""
    if info.type is not Recipe:
        return None
    defaults = info.default if isinstance(info.default, Recipe) else Recipe()
    texts, hints, begun = read_help(Recipe), get_type_hints(Recipe), ""
    themes: dict[str, list[tuple[str, Any, Any]]] = {}
    for one in fields(Recipe):
        begun = _BEGINNINGS.get(one.name, begun)
        hint = Annotated[hints[one.name], tyro.conf.arg(help=texts[one.name])]  # type: ignore[valid-type, name-defined]
        member = (one.name, hint, field(default=getattr(defaults, one.name)))
        themes.setdefault(_EXCEPTIONS.get(one.name, begun), []).append(member)
    groups = {theme: make_dataclass(theme, members) for theme, members in themes.items()}
    specs = [StructFieldSpec(name=theme, type=group, default=group()) for theme, group in groups.items()]

    def make_recipe(**found: Any) -> Recipe:
        return Recipe(**{name: value for group in found.values() for name, value in vars(group).items()})

    return StructConstructorSpec(instantiate=make_recipe, fields=tuple(specs))


def _choose_recipe(data: str) -> RecipeName:
    """Recipe for a data set where none is named."""
    return "demo" if data == "typefaces" else "quick"


def name_recipe(command: Common) -> str:
    """Name of the recipe that the settings started from, and whether they changed."""
    name = command.recipe or _choose_recipe(command.source.data)
    return name if command.settings == RECIPES[name] else f"{name}-changed"
