"""A cache in memory, of bounded size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")

Found = TypeVar("Found")

MAX_CACHED, MAX_BYTES = 2048, 2**26
"""Values in a cache, and their bytes at most."""


class Memo(Generic[Key, Found]):
    """A cache of the `most` values that were used last, or of fewer, so that they take at most so many bytes.

    size: bytes of a key and its value, about; without it, values are small.
    """

    def __init__(
        self, most: int = MAX_CACHED, size: Callable[[Key, Found], int] = lambda *_: 0, most_bytes: int = MAX_BYTES
    ) -> None:
        self._cached: dict[Key, Found] = {}
        self._most, self._most_bytes, self._size, self.num_bytes = most, most_bytes, size, 0

    def get(self, key: Key, find: Callable[[], Found]) -> Found:
        """Cached value, computed by `find` if missing."""
        if key in self._cached:
            found = self._cached.pop(key)
        else:
            found = find()
            self.num_bytes += self._size(key, found)
        self._cached[key] = found  # most recently used last
        while len(self._cached) > self._most or (self.num_bytes > self._most_bytes and len(self._cached) > 1):
            oldest = next(iter(self._cached))
            self.num_bytes -= self._size(oldest, self._cached.pop(oldest))
        return found
