"""Recorded traces: what is read, and what is refused in one line."""

from pathlib import Path

import numpy as np
import pytest

from vmxemu.configuration.errors import InputError
from vmxemu.measure.address_trace import read_trace


def test_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("0x7f0000001000  # a comment\n\n4096\n0xFFFF800000000008\n# nothing\n")
    assert read_trace(path).tolist() == [0x7F0000001000, 4096, 0xFFFF800000000008]


def test_array(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([1, 2**47 - 1], np.uint64))
    assert read_trace(path).tolist() == [1, 2**47 - 1]
    np.save(path, np.array([5, 6], ">u8"))
    assert read_trace(path).tolist() == [5, 6]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "holds no address"),
        (b"# only\n\n", "holds no address"),
        (b"1\n2\nx\n", "line 3: expected an address such as 0x7f0012345000 or 4096, not 'x'"),
        (b"7f00\n", "line 1: expected an address"),
        (b"-1\n", "line 1: expected an address"),
        (b"0x10000000000000000\n", "line 1: expected an address"),
        (b"1 2\n", "line 1: expected an address"),
        (b"1.5\n", "line 1: expected an address"),
        (b"\x00\xff\xfe\n", "is not text"),
        (b"4096\n0x800000000000\n", "address 2, 0x800000000000, is not canonical in 48 bits"),
    ],
)
def test_bad_text(content: bytes, says: str, tmp_path: Path) -> None:
    refused(tmp_path / "a.txt", content, says)


def refused(path: Path, content: bytes, says: str) -> None:
    path.write_bytes(content)
    with pytest.raises(InputError) as problem:
        read_trace(path)
    assert str(problem.value).startswith(str(path)) and says in str(problem.value) and "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros(0, np.uint64), "holds no address"),
        (np.zeros((2, 2), np.uint64), "expected a one-dimensional array of uint64, not uint64 of shape (2, 2)"),
        (np.zeros(3), "not float64 of shape (3,)"),
        (np.zeros(3, np.int64), "not int64"),
        (np.zeros(3, np.uint32), "not uint32"),
        (np.array([1 << 60], np.uint64), "is not canonical"),
    ],
)
def test_bad_arrays(array: np.ndarray, says: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    refused(tmp_path / "a.npy", (tmp_path / "a.npy").read_bytes(), says)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY\x01\x00\x10\x00{'descr'"])
def test_bad_npy_files(content: bytes, tmp_path: Path) -> None:
    refused(tmp_path / "a.npy", content, "is not a .npy file that can be read")


def test_objects_and_archives_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([{}], object), allow_pickle=True)
    refused(tmp_path / "a.npy", (tmp_path / "o.npy").read_bytes(), "is not a .npy file that can be read")
    np.savez(tmp_path / "z.npz", a=np.zeros(1))
    refused(tmp_path / "a.npy", (tmp_path / "z.npz").read_bytes(), "not an archive")


@pytest.mark.parametrize("name", ["missing.txt", "missing.npy"])
def test_missing_files(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_trace(tmp_path / name)
    with pytest.raises(InputError, match="is a directory"):
        read_trace(tmp_path)
