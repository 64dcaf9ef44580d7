"""Settings of all tests: Hypothesis draws the same examples each time, and takes as long as it takes."""

from hypothesis import settings

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
