"""Make trees of many small files quickly, and change a few of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

POOL_BYTES = 1 << 20
LARGEST_FILE_BYTES = 4096
FOLDERS_PER_PARENT = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """How a tree is laid out; the same shape gives the same names."""

    files: int
    directories: int
    """Directories that hold files; every 50 of them lie in one of their own."""
    filled: int = 1
    """Every how many files one has content; the others are empty."""

    @property
    def per_directory(self) -> int:
        """Files in each directory (in the last one perhaps fewer)."""
        return -(-self.files // self.directories)

    def directory(self, number: int) -> str:
        """Relative path of a directory."""
        return f"{number // FOLDERS_PER_PARENT:05d}/{number % FOLDERS_PER_PARENT:02d}"

    def file(self, number: int) -> str:
        """Relative path of a file."""
        return f"{self.directory(number // self.per_directory)}/file-{number:08d}.dat"


class Content:
    """Bytes that no two files share, without asking the kernel for each of them."""

    def __init__(self) -> None:
        self._pool = os.urandom(POOL_BYTES)

    def of(self, number: int) -> bytes:
        """From 0 to 4095 bytes, 2 kB on average."""
        mixed = (number + 1) * 2654435761 & 0xFFFFFFFF
        size = mixed >> 20
        start = mixed * 40503 % (POOL_BYTES - LARGEST_FILE_BYTES)
        return number.to_bytes(8, "little")[:size] + self._pool[start : start + max(0, size - 8)]


def grow(root: str, shape: Shape, already: int = 0) -> None:
    """Make the files of ``shape`` from number ``already`` on."""
    content = Content()
    first = already // shape.per_directory
    for directory in range(first, -(-shape.files // shape.per_directory)):
        path = f"{root}/{shape.directory(directory)}"
        os.makedirs(path, exist_ok=True)
        numbers = range(
            max(already, directory * shape.per_directory),
            min(shape.files, (directory + 1) * shape.per_directory),
        )
        _fill(path, ((number, os.path.basename(shape.file(number))) for number in numbers), content, shape)


def _fill(path: str, files: Iterator[tuple[int, str]], content: Content, shape: Shape) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number, name in files:
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=folder)
            try:
                if number % shape.filled == 0:
                    os.write(file, content.of(number))
            finally:
                os.close(file)
    finally:
        os.close(folder)


def flat(root: str, files: int) -> None:
    """One directory with many small files."""
    os.makedirs(root, exist_ok=True)
    shape = Shape(files=files, directories=1)
    _fill(root, ((number, f"run-{number:06d}.out") for number in range(files)), Content(), shape)


def rewrite(root: str, shape: Shape, count: int, turn: int) -> None:
    """Give ``count`` files, spread over the tree, new content; another set of files in each turn."""
    step = max(1, shape.files // count)
    for place in range(count):
        number = (place * step + turn * 7919) % shape.files
        with open(f"{root}/{shape.file(number)}", "wb") as file:
            file.write(os.urandom(1024 + (place * 37 + turn) % 3072))
