"""Who imports whom, read from the source; and that `import mosaicaug` needs torch alone, tried in a fresh process."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What each module of mosaicaug may import of it; `plan` stands alone, and arrows never turn.
TRANSFORMS = {"plan", "sample", "targets", "apply"}
ARROWS: dict[str, set[str]] = {
    "plan": set(),
    "sample": {"plan"},
    "targets": {"plan"},
    "backends": {"plan", "backends"},
    "apply": {"plan", "backends"},
    "annotations": {"plan", "apply"},
    "compiled": {"plan", "backends", "apply", "augmentation"},
    "augmentation": TRANSFORMS,
    "transforms": TRANSFORMS | {"augmentation"},
    "combine": TRANSFORMS | {"augmentation"},
    "kornia_base": TRANSFORMS | {"augmentation", "annotations"},
    "kornia": {"sample", "transforms", "kornia_base"},
    "dali_graph": {"sample", "augmentation"},
    "dali": {"plan", "sample", "targets", "transforms", "dali_graph"},
    "torchvision": TRANSFORMS | {"augmentation", "annotations"},
    "timm": TRANSFORMS | {"augmentation", "transforms", "combine"},
    "__init__": TRANSFORMS | {"augmentation", "transforms", "combine", "compiled", "backends", "annotations"},
}
# What some modules of pmsi may import of it; the others are free.
PMSI_ARROWS: dict[str, set[str]] = {
    "backbones": {"files"},
    "model": {"backbones"},
    "describe": {"model"},
    "rivals": {"backbones", "model", "rivals"},
}
# Each is imported in one file of mosaicaug at most.
GUESTS = {
    "triton": "backends/triton.py",
    "kornia": "kornia_base.py",
    "nvidia": "dali_graph.py",
    "torchvision": "torchvision.py",
    "PIL": "torchvision.py",
}
NEEDLESS = ["torchvision", "matplotlib", "kornia", "triton", "nvidia", "lightning", "rich", "tyro", "jinja2", "PIL"]


def read_imports(path: Path, root: Path) -> Iterator[tuple[str, str | None]]:
    """Every module that a file imports, anywhere in it, and the name taken from it."""
    package = path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((module, alias.name) for alias in node.names)


def find_wrong_arrows(root: Path) -> list[str]:
    """Imports within the project that turn an arrow, and guests outside their file."""
    wrong = []
    public = read_public_names(root)
    for package in ("mosaicaug", "pmsi"):
        for path in sorted((root / package).rglob("*.py")):
            place = path.relative_to(root / package).as_posix()
            for module, name in read_imports(path, root):
                top, *rest = module.split(".")
                if top == package == "mosaicaug":
                    target = rest[0] if rest else name or ""
                    allowed = ARROWS.get(place.removesuffix(".py").split("/")[0], ARROWS["__init__"])
                    fine = target in allowed
                elif package == "mosaicaug":
                    here = GUESTS.get(top, place)
                    fine = (top in sys.stdlib_module_names or top in {"torch", *GUESTS}) and here == place
                elif top == package:
                    target = rest[0] if rest else name or ""
                    fine = target in PMSI_ARROWS.get(place.removesuffix(".py").split("/")[0], {target})
                elif top == "timm":
                    fine = place == "backbones.py"
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
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "mosaicaug"
        and node.attr not in public
    ]


def read_public_names(root: Path) -> set[str]:
    for node in ast.parse((root / "mosaicaug/__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            return set(ast.literal_eval(node.value))
    raise AssertionError("mosaicaug/__init__.py has no __all__")


def find_draws(root: Path) -> list[str]:
    """Calls of torch that draw a random number, outside `sample.py`."""
    drawing = {"rand", "randn", "randint", "randperm", "rand_like", "randn_like", "bernoulli", "multinomial", "normal"}
    return [
        f"{path.name}: {node.attr}"
        for path in sorted((root / "mosaicaug").rglob("*.py"))
        if path.name != "sample.py"
        for node in ast.walk(ast.parse(path.read_text()))
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


def test_arrows_never_turn() -> None:
    assert find_wrong_arrows(ROOT) == []


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("mosaicaug/plan.py", "from mosaicaug.sample import jigsaw"),
        ("mosaicaug/plan.py", "from .apply import apply"),
        ("mosaicaug/plan.py", "import mosaicaug"),
        ("mosaicaug/sample.py", "from mosaicaug import transforms"),
        ("mosaicaug/targets.py", "import mosaicaug.apply"),
        ("mosaicaug/backends/torch.py", "from mosaicaug.apply import DTYPES"),
        ("mosaicaug/backends/torch.py", "from ..targets import Targets"),
        ("mosaicaug/apply.py", "import pmsi"),
        ("mosaicaug/apply.py", "import numpy"),
        ("mosaicaug/transforms.py", "import triton"),
        ("mosaicaug/transforms.py", "from mosaicaug.backends.torch import run"),
        ("pmsi/__init__.py", "from mosaicaug.plan import Plan"),
        ("pmsi/__init__.py", "from mosaicaug import sample"),
        ("pmsi/__init__.py", "import bench"),
        ("pmsi/backbones.py", "from pmsi.model import PMSI"),
        ("pmsi/model.py", "import pmsi.config"),
        ("pmsi/rivals/hbp.py", "from pmsi.train import Trainer"),
        ("pmsi/rivals/hbp.py", "import timm"),
    ],
)
def test_a_turned_arrow_is_seen(planted: Path, place: str, line: str) -> None:
    plant(planted, place, line)
    [wrong] = find_wrong_arrows(planted)
    assert wrong.startswith(place)


def test_a_hidden_name_is_seen(planted: Path) -> None:
    plant(planted, "pmsi/__init__.py", "print(mosaicaug.sample)")
    assert find_wrong_arrows(planted) == ["pmsi/__init__.py: mosaicaug.sample"]


def test_only_sample_draws(planted: Path) -> None:
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
