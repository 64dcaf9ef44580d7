"""The number of examples of a property: few in `make test`, all in `make test-all`."""

from __future__ import annotations

import os

ALL_EXAMPLES = os.environ.get("CHURNLAB_TEST_EXAMPLES") == "all"


def examples(few: int, many: int) -> int:
    """How many examples Hypothesis draws; the few are the first of the many, since it draws the same ones each time."""
    return many if ALL_EXAMPLES else few
