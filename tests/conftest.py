"""Settings of all tests: a terminal of 120 columns; Hypothesis draws the same examples each time, without deadline."""

import os

from hypothesis import settings

os.environ["COLUMNS"] = "120"  # before a console is made
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
