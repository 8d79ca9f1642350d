"""MATLAB files: what scipy wrote, what MATLAB's own short forms look like, and files that are no such thing."""

from __future__ import annotations

import base64
import struct
from pathlib import Path

import numpy as np
import pytest

from pmsi.data.matfile import read_mat
from tests.helpers.dataset_files import CARS, write_mat

# Written by scipy 1.17's savemat(do_compression=True); the 128 bytes before it are made in `write_scipy`.
SCIPY = (
    "4*&oFw*UYDc%0*7U|>jKVqjnc(i}hxWP$-Jl+Oqi1JT?-oS2uFUy@jonV(k-RmTEXrvSuBN%<A=6^0DSIf=y}6=`{ixv4-Js0&0f@By&}1HwK&Ec"
    "U@L2=G9~)uDWH_46U=cR<q5f<-?kl70aw-v9^<^|A`mk<2kbGKUS#92kI^!->QF==#vz&xvfFgOdZgy_^K}GXYsgu-J>u->hi<2JsW2ekMmhNbS"
    ")D+4(7n3=9B=fg0Wq0001e0001Zoa19)U=UzrU|<8%96$_Yf&nWMpBYMX195UrVsUYNUSe))F<2cR5C<?I^s`{mFNI{T0F>|OtKgoRms*sVqu^1R"
    "o10ps5F8q&U}RumzyLSbfPlG-DCROUR6zAPAnD^m)5nD59|kC!2h3*y%CQ3ZY+!K!{a+6l"
)


def write_scipy(path: Path) -> None:
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + base64.b85decode(SCIPY))


def test_reads_what_scipy_wrote(tmp_path: Path) -> None:
    write_scipy(tmp_path / "a.mat")
    found = read_mat(tmp_path / "a.mat")
    first, second = found["annotations"]
    assert [first[name] for name in ("bbox_x1", "class", "fname")] == [39, 14, "00001.jpg"]
    assert first["note"].size == 0
    assert second == {"bbox_x1": 36.5, "class": 196, "fname": "a.jpg", "note": "\u0160koda"}
    assert found["class_names"][:2] == ["AM General Hummer SUV 2000", "x"]
    assert np.array_equal(found["class_names"][2], [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compress", [False, True])
def test_reads_either_order_of_bytes(tmp_path: Path, order: str, compress: bool) -> None:
    cars = [{"class": 7, "bbox_x2": 300, "fname": "x.jpg"}, {"class": 2.5, "bbox_x2": 1, "fname": "ab"}]
    write_mat(tmp_path / "a.mat", order=order, compress=compress, n=4, annotations=cars, class_names=[*CARS, None])
    found = read_mat(tmp_path / "a.mat")
    assert list(found) == ["n", "annotations", "class_names"]
    assert (found["n"], found["annotations"]) == (4, cars)
    assert found["class_names"][:-1] == [*CARS]
    assert found["class_names"][-1].size == 0


def test_damage_is_reported_wherever_it_is(tmp_path: Path) -> None:
    """Cut anywhere, or with any one byte changed, a file is refused with one kind of error, or still read."""
    write_mat(path := tmp_path / "a.mat", compress=False, annotations=[{"class": 1, "fname": "x.jpg"}])
    good = path.read_bytes()
    for length in range(129, len(good), 3):
        path.write_bytes(good[:length])
        with pytest.raises(ValueError, match=r"a.mat is damaged, or no MATLAB file of level 5 \("):
            read_mat(path)
    path.write_bytes(good.replace(struct.pack("<IIii", 5, 8, 1, 1), struct.pack("<IIii", 5, 8, 1, 2), 2))
    with pytest.raises(ValueError, match="cannot reshape array of size 1"):
        read_mat(path)
    refused = 0
    for place in range(128, len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :])
        try:
            read_mat(path)
        except ValueError as error:
            assert "a.mat is damaged" in str(error)  # noqa: PT017
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "its header is not that of level 5"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + b"\x89HDF\r\n\x1a\n" * 9, "it ends within an element"),
        (b"".ljust(126) + b"IM" + struct.pack("<II4s4x", 15, 4, b"none"), "incorrect header check"),
        (b"".ljust(126) + b"IM" + struct.pack("<IId", 9, 8, 1.0), "an element of type 9 where a variable should be"),
        (b"".ljust(126) + b"IM" + struct.pack("<IIII", 14, 8, 6, 0), "out of bounds"),  # an array without flags
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(ValueError, match=rf"level 5 \(.*{reason}.*\); files of -v4 and -v7.3 must be saved as -v7"):
        read_mat(tmp_path / "a.mat")
    with pytest.raises(FileNotFoundError):
        read_mat(tmp_path / "b.mat")


@pytest.mark.parametrize(
    ("kind", "shape", "reason"),
    [
        (5, (1, 1), "array of class 5"),
        (0x806, (1, 1), "complex numbers"),
        (4, (2, 1), "text of several lines"),
    ],
)
def test_what_annotations_never_hold_is_refused(tmp_path: Path, kind: int, shape: tuple[int, int], reason: str) -> None:
    inside = (
        struct.pack("<IIII", 6, 8, kind, 0)
        + struct.pack("<IIii", 5, 8, *shape)
        + struct.pack("<I4s", 1 << 16 | 1, b"x")
    )
    (tmp_path / "a.mat").write_bytes(b"".ljust(126) + b"IM" + struct.pack("<II", 14, len(inside)) + inside)
    with pytest.raises(ValueError, match=reason):
        read_mat(tmp_path / "a.mat")
