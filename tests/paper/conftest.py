"""A small sweep that trains, and its extract."""

import pytest

from benchmarks.paper.extract import Extract
from sim.results.storage import load
from support.sweeps import do_sweep, write_scenario


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folder, scenario file and extract of the sweep."""
    folder = tmp_path_factory.mktemp("paper")
    path = write_scenario(folder)
    do_sweep(path, folder / "results", folder / "cache")
    return folder, path, Extract.of(load(folder / "results" / "tiny"))
