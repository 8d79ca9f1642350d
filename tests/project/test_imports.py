"""Who imports whom, read from the source; and that `import mosaicaug` needs torch alone, tried in a fresh process."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from graphlib import CycleError
from pathlib import Path

import pytest

from bench.source_tables import count_levels, list_nodes, read_arrows, read_imports

ROOT = Path(__file__).parents[2]

# A file imports from rungs below its own; what shares a rung stays apart. Files of one folder may import each other.
LADDERS: dict[str, list[set[str]]] = {
    "mosaicaug": [
        {"plan", "zorder", "checks"},
        {"contents"},
        {"sampling", "targets", "rectangles", "backends"},
        {"apply", "settings", "stream", "config"},
        {"annotations", "augmentation"},
        {"transforms", "compose", "operators"},
        {"kornia", "dali", "timm", "torchvision", "huggingface", "arrays", "preview"},
        {"__init__"},
    ],
    "pmsi": [
        {"recipe", "paper", "runtime"},
        {"data", "models"},
        {"evaluation"},
        {"training", "deployment"},
        {"experiments"},
        {"report"},
        {"cli"},
        {"__init__", "__main__"},
    ],
}
RUNGS = {
    package: {thing: level for level, rung in enumerate(ladder) for thing in rung}
    for package, ladder in LADDERS.items()
}
# Each is imported in these files of mosaicaug at most.
GUESTS = {
    "triton": tuple(f"backends/triton/{name}.py" for name in ("kernel", "chunks", "pixels")),
    "kornia": ("kornia/operation.py",),
    "nvidia": ("dali/graph.py",),
    "torchvision": ("torchvision.py",),
    "PIL": ("torchvision.py", "preview.py"),
}
NEEDLESS = [
    "torchvision",
    "matplotlib",
    "kornia",
    "triton",
    "nvidia",
    "lightning_fabric",
    "rich",
    "tyro",
    "jinja2",
    "PIL",
]


def find_wrong_arrows(root: Path) -> list[str]:
    """Imports within the project that climb or stay on a rung, guests outside their file, and what has no rung."""
    wrong = []
    public = read_public_names(root)
    for package, rungs in RUNGS.items():
        for path in sorted((root / package).rglob("*.py")):
            place = path.relative_to(root / package).as_posix()
            here = place.removesuffix(".py").split("/")[0]
            for module, name in read_imports(path, root):
                top, *rest = module.split(".")
                if top == package:
                    there = rest[0] if rest else name or ""
                    fine = here == there or rungs.get(there, len(rungs)) < rungs.get(here, -1)
                elif package == "mosaicaug":
                    known = top in sys.stdlib_module_names or top in {"torch", *GUESTS}
                    fine = known and place in GUESTS.get(top, (place,))
                elif top == "timm":
                    fine = place == "models/backbones.py"
                elif top == "mosaicaug":
                    fine = not rest and (name is None or name in public)
                else:
                    fine = top not in {"bench", "examples", "tests"}
                if not fine:
                    wrong.append(f"{package}/{place}: {module} {name or ''}".rstrip())
            wrong += find_hidden_names(path, public) if package == "pmsi" else []
    return wrong


def find_hidden_names(path: Path, public: set[str]) -> list[str]:
    """`mosaicaug.x` where x is not public."""
    return [
        f"pmsi/{path.name}: mosaicaug.{node.attr}"
        for node in list_nodes(path)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "mosaicaug"
        and node.attr not in public
    ]


def read_public_names(root: Path) -> set[str]:
    for node in ast.parse((root / "mosaicaug/__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            return {*ast.literal_eval(node.value), "__version__"}
    raise AssertionError("mosaicaug/__init__.py has no __all__")


def find_draws(root: Path) -> list[str]:
    """Calls of torch that draw a random number, outside `sampling.py`."""
    drawing = {"rand", "randn", "randint", "randperm", "rand_like", "randn_like", "bernoulli", "multinomial", "normal"}
    return [
        f"{path.name}: {node.attr}"
        for path in sorted((root / "mosaicaug").rglob("*.py"))
        if path.name != "sampling.py"
        for node in list_nodes(path)
        if isinstance(node, ast.Attribute) and node.attr.rstrip("_") in drawing
    ]


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A copy of the project's packages to plant faults in."""
    for package in ("mosaicaug", "pmsi"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def plant(root: Path, place: str, line: str) -> None:
    path = root / place
    path.write_text(path.read_text() + f"\n\ndef _planted() -> None:\n    {line}\n")


def test_imports_go_down_the_ladder() -> None:
    assert find_wrong_arrows(ROOT) == []


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("mosaicaug/plan.py", "from mosaicaug.sampling import jigsaw"),
        ("mosaicaug/plan.py", "from .apply import apply"),
        ("mosaicaug/plan.py", "import mosaicaug"),
        ("mosaicaug/sampling.py", "from mosaicaug import transforms"),
        ("mosaicaug/targets.py", "import mosaicaug.apply"),
        ("mosaicaug/backends/reference.py", "from mosaicaug.apply import DTYPES"),
        ("mosaicaug/backends/reference.py", "from ..targets import Targets"),
        ("mosaicaug/apply.py", "import pmsi"),
        ("mosaicaug/apply.py", "import numpy"),
        ("mosaicaug/transforms.py", "import triton"),
        ("mosaicaug/transforms.py", "from mosaicaug.compose import Compose"),
        ("mosaicaug/kornia/operation.py", "from mosaicaug.dali import jigsaw"),
        ("mosaicaug/backends/cpu/tiles.py", "from mosaicaug import sampling"),
        ("pmsi/__init__.py", "from mosaicaug.plan import Plan"),
        ("pmsi/__init__.py", "from mosaicaug import sampling"),
        ("pmsi/__init__.py", "import bench"),
        ("pmsi/data/cache.py", "from pmsi.models.pmsi import PMSI"),
        ("pmsi/runtime/files.py", "from pmsi.recipe import Recipe"),
        ("pmsi/models/pmsi.py", "import pmsi.experiments.study"),
        ("pmsi/experiments/study.py", "from pmsi.report import page"),
        ("pmsi/models/hbp.py", "from pmsi.training.trainer import Trainer"),
        ("pmsi/models/hbp.py", "import timm"),
    ],
)
def test_an_import_that_climbs_is_seen(planted: Path, place: str, line: str) -> None:
    plant(planted, place, line)
    [wrong] = find_wrong_arrows(planted)
    assert wrong.startswith(place)


def test_rooms_of_pmsi_stay_few_levels_apart() -> None:
    """docs/architecture.md lists them."""
    arrows = read_arrows(ROOT / "pmsi")
    assert max(count_levels(arrows).values()) <= 8
    assert sum(map(len, arrows.values())) <= 40


def test_arrows_and_circles_are_seen(planted: Path) -> None:
    before = read_arrows(planted / "pmsi")
    plant(planted, "pmsi/paper.py", "from pmsi.recipe import Recipe")
    plant(planted, "pmsi/paper.py", "import pmsi.recipe")  # the same arrow
    (planted / "pmsi" / "attic.py").write_text("from pmsi import __main__\n")
    after = read_arrows(planted / "pmsi")
    assert after == before | {"paper": {"recipe"}, "attic": {"__main__"}}
    # One level more for `attic`, and one for `paper` on top of `recipe`, on which `data` stands.
    assert max(count_levels(after).values()) == max(count_levels(before).values()) + 2
    plant(planted, "pmsi/recipe/__init__.py", "from pmsi import paper")
    with pytest.raises(CycleError, match="paper"):
        count_levels(read_arrows(planted / "pmsi"))


def test_a_hidden_name_is_seen(planted: Path) -> None:
    plant(planted, "pmsi/__init__.py", "print(mosaicaug.sampling)")
    assert find_wrong_arrows(planted) == ["pmsi/__init__.py: mosaicaug.sampling"]


def test_only_sampling_draws(planted: Path) -> None:
    assert find_draws(ROOT) == []
    plant(planted, "mosaicaug/apply.py", "torch.rand(1)")
    assert find_draws(planted) == ["apply.py: rand"]


# torch comes first, with all that it brings by itself. Then nothing else may come but the standard library and more of
# torch; and what torch had brought is taken out of sight, so that it is not found by luck.
IMPORT_ALONE = """
import sys
import torch
sys.path.insert(0, sys.argv[1])
fine = {"torch", "mosaicaug", *sys.stdlib_module_names}
for name in list(sys.modules):
    if name.partition(".")[0] in NEEDLESS:
        sys.modules[name] = None
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in fine:
            raise ImportError(f"refused: {name}")
sys.meta_path.insert(0, Refuse())
import mosaicaug
assert mosaicaug.__file__.startswith(sys.argv[1]), mosaicaug.__file__
images, targets = mosaicaug.CutMix()(torch.zeros(2, 3, 8, 8), torch.arange(2))
mosaicaug.RecursiveMosaic(2)(images)
assert not [name for name in NEEDLESS if sys.modules.get(name)]
""".replace("NEEDLESS", repr(NEEDLESS))


def import_alone(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", IMPORT_ALONE, str(root)], capture_output=True, text=True, check=False, timeout=120
    )


def test_import_needs_torch_alone() -> None:
    done = import_alone(ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["PIL", "matplotlib"])
def test_an_import_of_more_is_seen(planted: Path, name: str) -> None:
    path = planted / "mosaicaug/plan.py"
    path.write_text(path.read_text().replace("import math\n", f"import math\nimport {name}\n", 1))
    done = import_alone(planted)
    assert done.returncode == 1
    assert f"ImportError: refused: {name}" in done.stderr
