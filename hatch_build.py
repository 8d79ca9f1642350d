"""Build of the CPU kernel: by hatchling when the package is installed, or by `python hatch_build.py` in a checkout.

Without a C compiler the package is built all the same, and `mosaicaug.show_config()` says so.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "mosaicaug" / "backends" / "cpu"
SOURCE, LIBRARY = FOLDER / "kernel.c", FOLDER / "kernel.native"
# Products and sums are rounded one by one, as torch rounds them: the bits must be the same.
OPTIONS = ["-std=gnu11", "-O3", "-ffp-contract=off", "-fno-trapping-math", "-fvisibility=hidden", "-fPIC", "-shared"]


def compile_kernel(library: Path = LIBRARY) -> None:
    """Compile kernel.c into ``library``, which processes may have loaded: it is replaced as a whole.

    The library knows the checksum of its source, so that a stale one is not used.

    Raises:
        OSError: there is no C compiler; ``CC`` names another one than ``cc``.
        subprocess.CalledProcessError: it failed.
    """
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder, library.name)
        checksum = f"-DSOURCE={zlib.crc32(SOURCE.read_bytes())}"
        command = [*shlex.split(os.environ.get("CC", "cc")), *OPTIONS, checksum, str(SOURCE), "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        made.replace(library)


def is_current() -> bool:
    """True if the library in the source tree is newer than what it is made of."""
    made_of = (SOURCE, Path(__file__))
    return LIBRARY.exists() and LIBRARY.stat().st_mtime > max(path.stat().st_mtime for path in made_of)


def describe_failure(error: Exception) -> str:
    """Line on a kernel that could not be compiled."""
    lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
    return (
        f"the CPU kernel was not compiled, torch's operations do its work more slowly: {lines[0] if lines else error}"
    )


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by itself, without the build backend
    pass
else:

    class KernelBuildHook(BuildHookInterface):  # type: ignore[type-arg]
        """Adds the compiled kernel to a wheel, which is then one for this platform."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
            try:
                if not is_current():
                    compile_kernel()
            except (OSError, subprocess.CalledProcessError) as error:
                self.app.display_warning(describe_failure(error))
                return
            from packaging.tags import sys_tags

            platform = next(tag.platform for tag in sys_tags() if "linux_" not in tag.platform[4:])
            build_data |= {"pure_python": False, "tag": f"py3-none-{platform}"}
            build_data["artifacts"].append(LIBRARY.relative_to(Path(self.root)).as_posix())


if __name__ == "__main__":
    try:
        compile_kernel()
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(describe_failure(error))
