"""Flat files of token ids, as nanoGPT writes them: little-endian unsigned integers of 2 or 4 bytes, without a header.

Every even number of bytes can be read as ids of 2 bytes. Files of another type are therefore told by their content.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
Halves = npt.NDArray[np.uint16]  # a file's content in units of 2 bytes

NUM_SAMPLED = 2**20
"""Units of 2 bytes from which the width of ids is told."""
LEAST_SAMPLED, LEAST_LONG = 8, 64
LEAST_SAMPLED_FOR_BYTES = 2000
"""Units from which the histograms of bytes at even and odd places can be compared."""

HEADERS = {
    (20240520).to_bytes(4, "little"): "the header of an llm.c file of uint16 (magic 20240520, 1,024 bytes)",
    (20240801).to_bytes(4, "little"): "the header of an llm.c file of uint32 (magic 20240801, 1,024 bytes)",
    b"\x93NUMPY": "the header of a NumPy file (.npy)",
    b"PK\x03\x04": "the header of a zip archive (.npz, .zip, .pt)",
    b"PAR1": "the header of a Parquet file",
    b"\x28\xb5\x2f\xfd": "the header of a zstd file",
    b"\x1f\x8b\x08\x00": "the header of a gzip file",
    b"\x1f\x8b\x08\x08": "the header of a gzip file",
}


@dataclass(frozen=True)
class MappedFile:
    """A file that is mapped into memory: reading it after it was cut would end the process by SIGBUS."""

    path: str
    num_bytes: int
    modified_ns: int

    def require_unchanged(self) -> None:
        """Raise ValueError if the file is not as it was when it was mapped."""
        try:
            now = os.stat(self.path)
        except OSError as error:
            raise ValueError(f"{self.path} cannot be read any more: {error.strerror}") from error
        if (now.st_size, now.st_mtime_ns) != (self.num_bytes, self.modified_ns):
            what = f"it had {self.num_bytes:,} bytes and has {now.st_size:,}" if now.st_size != self.num_bytes else ""
            raise ValueError(
                f"{self.path} has changed while it was in use{': ' + what if what else ''}; start again with the file "
                "as it should be"
            )


def map_tokens(path: Path, size: int, token_bytes: int) -> tuple[Tokens, MappedFile]:
    """Memory map of a file of token ids below `size`, [num_tokens]; ValueError if it is not one."""
    content, file = map_file(path)
    name = f"uint{8 * token_bytes}"
    for header, what in HEADERS.items():
        if bytes(content[: len(header)]) == header:
            raise ValueError(f"{path} begins with {what}: expected {name} tokens alone; {without_header(what)}")
    if not len(content) or len(content) % token_bytes:
        raise ValueError(f"{path} has {len(content):,} bytes: expected {name} tokens, {token_bytes} bytes each")
    found = width_found(content[: len(content) // 2 * 2].view("<u2")[:NUM_SAMPLED], len(content))
    if found not in (None, token_bytes):
        raise ValueError(f"{path} holds {describe_width(found)}: expected {name} tokens, {token_bytes} bytes each")
    tokens: Tokens = content.view(f"<u{token_bytes}")
    where = int(tokens.argmax())
    if tokens[where] >= size:
        fits = token_bytes == 4 and content.view("<u2").max() < size
        hint = "; read with token_bytes: 2, all tokens are" if fits else ""
        raise ValueError(f"{path}: token {tokens[where]} at {where:,} is not below vocabulary_size {size}{hint}")
    return tokens, file


def without_header(what: str) -> str:
    """How to get a file of ids from a file with this header."""
    if "llm.c" not in what:
        return "unpack it, and write its ids with numpy's tofile"
    width = 2 if "uint16" in what else 4
    return f"cut it off (tail -c +1025 FILE > NEW) and read the rest with token_bytes: {width}"


def width_found(halves: Halves, num_bytes: int) -> int | None:
    """Bytes of an id, where the content says it: 1, 4 or 8. None where it may be 2, or too little is there.

    In ids of 4 or 8 bytes the upper units are 0, or below 16 for vocabularies of up to a million, while the lowest ones
    are not. In ids of 1 byte, as in plain text, bytes at even and at odd places are distributed alike.
    """
    if len(halves) < LEAST_SAMPLED:
        return None
    for width in (8, 4):
        if num_bytes % width:
            continue
        columns = halves[: len(halves) // 4 * 4].reshape(-1, width // 2)
        lowest, second, is_long = columns[:, 0], columns[:, 1], len(columns) >= LEAST_LONG
        if second.any():  # by chance in ids of 2 bytes: 0.7 to the power of 64 at most
            fits = second.max() < 16 and is_long and np.mean(lowest >= 16) > 0.3
        else:
            fits = np.mean(lowest == 0) < (0.95 if is_long else 0.4)
        if fits and not columns[:, 2:].any():
            return width
    return 1 if len(halves) >= LEAST_SAMPLED_FOR_BYTES and of_single_bytes(halves) else None


def of_single_bytes(halves: Halves) -> bool:
    """Whether bytes at even and at odd places have one distribution, which is not uniform."""
    even, odd = (np.bincount(side, minlength=256) for side in (halves & 255, halves >> 8))
    distance = np.abs(even - odd).sum() / 2 / len(halves)
    share = (even + odd).max() / 2 / len(halves)
    return bool(distance < 0.1 and 4 / 256 < share < 1)


def describe_width(width: int | None) -> str:
    """What ids of this width are, and what to do with them."""
    if width == 1:
        return "plain text or tokens of 1 byte each (use source: text, or write the tokens as uint16)"
    return f"tokens of {width} bytes each ({'set token_bytes: 4' if width == 4 else 'write them as uint32 or uint16'})"


def map_file(path: Path) -> tuple[npt.NDArray[np.uint8], MappedFile]:
    """Read-only memory map of a file, [num_bytes]; ValueError if it cannot be read."""
    with readable(path):
        status = path.stat()
        content = np.asarray(np.memmap(path, mode="r") if status.st_size else [], dtype=np.uint8)
        return content, MappedFile(str(path.resolve()), len(content), status.st_mtime_ns)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Context in which a file is read; ValueError if it cannot be."""
    try:
        if not path.is_file():
            found = "a folder" if path.is_dir() else "a pipe or device" if path.exists() else "missing"
            raise ValueError(f"cannot read {path}: expected a file, but it is {found}")
        yield
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
