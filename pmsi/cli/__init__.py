"""The `pmsi` command; without the packages of its extra, one line that says what to install."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

# Package to import -> package to install, of what the extra `pmsi` in pyproject.toml lists.
EXTRA = {
    "PIL": "pillow",
    "filelock": "filelock",
    "jinja2": "jinja2",
    "lightning_fabric": "lightning-fabric",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "rich": "rich",
    "torchvision": "torchvision",
    "tyro": "tyro",
}


def main() -> int:
    """Run the `pmsi` command; the exit code is 2 where a package of its extra is not installed.

    ``pmsi predict`` runs by itself: an exported file needs Pillow, numpy and its own runtime. A reader that has enough,
    as ``| head`` does, ends any command in silence, with exit code 1.
    """
    try:
        try:
            return _choose_main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what Python flushes at its end goes there
        return 1


def _choose_main() -> int:
    """Run `pmsi predict`, or every other command if its packages are there."""
    if sys.argv[1:2] == ["predict"] and all(map(find_spec, ("PIL", "numpy"))):
        from pmsi.cli import predict

        return predict.main(sys.argv[2:])
    missing = [package for module, package in EXTRA.items() if find_spec(module) is None]
    if missing:
        lack = f"(missing: {', '.join(missing)})"
        print(f"pmsi: needs the extra packages: pip install 'mosaicaug[pmsi]' {lack}", file=sys.stderr)
        return 2
    from pmsi.cli import commands  # not above: it imports these packages

    return commands.main()


__all__ = ["EXTRA", "main"]
