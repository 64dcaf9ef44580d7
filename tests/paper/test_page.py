"""docs/paper.md and README follow from the committed numbers."""

from benchmarks.paper.extract import COMMITTED
from benchmarks.paper.page import PAGE, render
from benchmarks.paper.published import HIGHEST
from benchmarks.paper.tables import RATE, SECONDS, StudyTables


def test_page_is_rendered_from_the_committed_numbers():
    assert PAGE.read_text(encoding="utf-8") == render(), "python -m benchmarks.paper.page writes it again"


def test_readme_has_the_numbers_of_the_page():
    tables = StudyTables(COMMITTED / "full")
    times = tables.against("table2", SECONDS, "redundant").set_index(["strategy", RATE])["ratio"]
    readme = " ".join((PAGE.parents[1] / "README.md").read_text(encoding="utf-8").split())
    assert f"here it takes {times['checkfree', HIGHEST]:.2f} times as long" in readme
