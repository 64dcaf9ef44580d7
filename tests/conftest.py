"""Settings of all tests: a terminal of 120 columns; Hypothesis draws the same examples each time, without deadline."""

import os

import pytest
from hypothesis import settings

from sim.core.plugins import FOLDER_VARIABLE

os.environ["COLUMNS"] = "120"  # before a console is made
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def no_plugin_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is invoked in the process of the tests asks for a folder of plug-ins for itself alone."""
    monkeypatch.setenv(FOLDER_VARIABLE, "")
