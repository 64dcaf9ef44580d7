"""The number of examples of a test: few in `make test`, all in `make test-all`."""

from __future__ import annotations

import os

ALL_EXAMPLES = os.environ.get("CHURNLAB_TEST_EXAMPLES") == "all"


def examples(few: int, many: int) -> int:
    """How many examples a test has. Hypothesis draws the same ones each time: the few are the first of the many."""
    return many if ALL_EXAMPLES else few
