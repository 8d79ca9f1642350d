"""Check of `torch.export` archives: a graph and plain numbers alone, since torch unpickles what else it finds in one.

An archive (``.pt2``) is a zip file of one folder. Tensors lie in it as raw bytes, or pickled, as objects of other kinds
do; torch unpickles those, and so runs code that the file holds.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path

_PLAIN = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|models/model\.json|extra/[^/]+"
    r"|archive_format|archive_version|byteorder|\.data/[a-z_]+"
)
_CONFIGS = {
    "data/weights/model_weights_config.json": "weight_",
    "data/constants/model_constants_config.json": "tensor_",
}
_INPUTS = "data/sample_inputs/model.pt"


def check_archive(path: Path) -> None:
    """Check that nothing in an archive of `torch.export.save` would be unpickled but tensors and plain values.

    Raises:
        ValueError: something would, or a member is none of those that `torch.export.save` writes for plain tensors.
        zipfile.BadZipFile: it is no archive.
    """
    import torch

    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len({*names}) < len(names):
            raise ValueError("a name stands twice in the archive")
        for name in names:
            member = name.partition("/")[2]
            if member in _CONFIGS:
                entries = json.loads(archive.read(name))["config"].values()
                if not all(one["path_name"].startswith(_CONFIGS[member]) and not one["use_pickle"] for one in entries):
                    raise ValueError(f"{member} asks for objects to be unpickled")
            elif member == _INPUTS:
                torch.load(io.BytesIO(archive.read(name)), weights_only=True)
            elif not _PLAIN.fullmatch(member):
                raise ValueError(f"{member} is no part of a network of plain tensors")
