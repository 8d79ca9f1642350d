"""Download of the paper's data sets: resumed where it broke off, checked by MD5, unpacked as a whole."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import tarfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from filelock import FileLock

from pmsi.data.decoding import Progress
from pmsi.data.layouts import LAYOUTS
from pmsi.runtime.files import describe_error, expand_home

if TYPE_CHECKING:
    ArchiveName = str  # a literal cannot be made of a table for the type checker
else:
    ArchiveName = Literal[tuple(name for name, layout in LAYOUTS.items() if layout.archive or layout.elsewhere)]


_MB = 10**6
_CHUNK = 2**20
_TIMEOUT = 30.0  # seconds without a byte
_MOST = 20 * 10**9  # bytes of an archive, where the largest has 2.75 GB
_NOT_SATISFIABLE = 416  # there is nothing after the bytes that were asked for


def download_dataset(name: ArchiveName, root: Path, progress: Progress | None = None) -> Path:
    """Download and unpack a data set; the same call goes on after an interruption, and does nothing when all is there.

    Of several processes, one works at a time.

    Args:
        name: "cub" (1.15 GB), "aircraft" (2.75 GB) or "cars", which can no longer be downloaded.
        root: gets the archive, which may be deleted afterwards, and the folder that it unpacks to.
        progress: called with (what, done, total), in MB.

    Returns:
        The folder of the data set.

    Raises:
        ValueError: "cars"; or what came, or lies there, is not what was published.
        OSError: the server, the network or the disk failed; what was downloaded is kept.
    """
    archive = LAYOUTS[name].archive
    if archive is None:
        advice = LAYOUTS[name].elsewhere or f"{name}: there is nothing to download"
        raise ValueError(advice.format(root=root))
    root = expand_home(root)
    folder, file = root / archive.folder, root / archive.url.rpartition("/")[2]
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f".{file.name}.lock"):
        if not folder.is_dir():  # another process was first
            download_file(archive.url, file, archive.md5, progress)
            unpack_archive(file, root, progress)
    return folder


def download_file(
    url: str, path: Path, md5: str, progress: Progress | None = None, *, timeout: float = _TIMEOUT
) -> None:
    """Download ``url`` to ``path``, which is complete and checked or not there; a part beside it is resumed.

    Args:
        timeout: seconds without a byte after which the server is given up.

    Raises:
        ValueError: what came has another MD5 and was deleted; or a file at ``path`` has, and was left alone.
        OSError: the server, the network or the disk failed; what was downloaded is kept.
    """
    if path.exists():
        if (found := _compute_md5(path)) != md5:
            raise ValueError(
                f"{path} is not what {url} publishes: its md5 is {found}, not {md5}; move it away, and run this again"
            )
        return
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _receive(url, part, progress, timeout)
        found = _compute_md5(part)
        if found == md5:
            part.replace(path)
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: sent on to what is no address
        kept = part.stat().st_size / _MB if part.exists() else 0
        inner = error.reason if type(error) is urllib.error.URLError else error
        reason = describe_error(inner if isinstance(inner, Exception) else error)
        raise OSError(
            f"could not download {url}: {reason}. {kept:.1f} MB are kept, and the same command goes on from there;"
            f" or download it by other means to {path}"
        ) from error
    if found != md5:
        part.unlink()
        raise ValueError(
            f"{url}: what came has the md5 {found}, not {md5}, and was deleted. Run this again; if that changes"
            f" nothing, download it by other means to {path}"
        )


def _receive(url: str, part: Path, progress: Progress | None, timeout: float) -> None:
    """Complete ``part`` to all bytes of ``url``; the server is asked only for those that are missing, if it can."""
    start = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "pmsi", **({"Range": f"bytes={start}-"} if start else {})}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == _NOT_SATISFIABLE and start:
            return
        raise
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            start = 0
        length = response.length  # None where it is not said, or no length
        total = None if length is None else start + length
        free = shutil.disk_usage(part.parent).free
        if total is not None and total - start > free:
            raise OSError(f"{(total - start) // _MB} MB are to come, and {part.parent} has room for {free // _MB} MB")
        with part.open("ab" if start else "wb") as file:
            while piece := response.read1(_CHUNK):
                file.write(piece)
                start += len(piece)
                if start > _MOST:
                    raise OSError(f"the server sends more than {_MOST // _MB} MB, which is no data set of the paper")
                if progress is not None:
                    progress(f"downloading {part.name[1:-5]}, MB", start // _MB, (total or start) // _MB)
    if total is not None and start < total:
        raise OSError(f"the server broke off after {start / _MB:.1f} of {total / _MB:.1f} MB")


def unpack_archive(archive: Path, root: Path, progress: Progress | None = None) -> None:
    """Unpack a tar file; what it holds appears in ``root`` when all of it is unpacked.

    Raises:
        ValueError: it is damaged, or would write outside its folder.
        OSError: the disk failed, and what was unpacked so far is removed; or this Python cannot unpack safely.
    """
    beside, size = archive.with_name(f".{archive.name}.unpacked"), archive.stat().st_size
    if not hasattr(tarfile, "data_filter"):
        raise OSError(f"unpacking safely needs Python 3.11.4 or newer; or run: tar -C {root} -xf {archive}")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir()
        with archive.open("rb") as file, tarfile.open(fileobj=file) as tar:
            for member in tar:
                tar.extract(member, beside, filter="data")
                if progress is not None:
                    progress(f"unpacking {archive.name}, MB", file.tell() // _MB, size // _MB)
            while tar.fileobj is not None and tar.fileobj.read(_CHUNK):  # to the checksum, which comes last
                pass
        for entry in sorted(beside.iterdir(), key=Path.is_dir):  # folders last: their being there says all is done
            entry.replace(root / entry.name)
    except Exception as error:  # damage makes tarfile raise anything from TarError to OverflowError
        reason = describe_error(error)
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, and not of a decompressor
            raise OSError(f"could not unpack {archive} to {root}: {reason}; make room, and run this again") from error
        raise ValueError(f"{archive} cannot be unpacked: {reason}; delete it, and run this again") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _compute_md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
