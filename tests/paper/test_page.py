"""docs/paper.md and README follow from the committed numbers."""

from benchmarks.paper.extract import COMMITTED
from benchmarks.paper.page import PAGE, render
from benchmarks.paper.published import HIGHEST, RATES
from benchmarks.paper.tables import EXECUTED, RATE, REBUILDING, SECONDS, StudyTables


def test_page_is_rendered_from_the_committed_numbers():
    assert PAGE.read_text(encoding="utf-8") == render(), "python -m benchmarks.paper.page writes it again"


def test_readme_has_the_numbers_of_the_page():
    tables = StudyTables(COMMITTED / "full")
    table = tables.against("table2", EXECUTED, "none").set_index(["strategy", RATE])
    iterations, widest = table["ratio"], table.loc[("checkfree", HIGHEST)]
    readme = (PAGE.parents[1] / "README.md").read_text(encoding="utf-8")
    in_words = [" / ".join(f"{iterations[name, rate]:.2f}" for rate in RATES) for name in REBUILDING]
    assert " and ".join(in_words) in readme
    assert "({ratio:.2f} is {low_ratio:.2f} to {high_ratio:.2f})".format(**widest) in readme
    times = tables.against("table2", SECONDS, "redundant").set_index(["strategy", RATE])["ratio"]
    for name in REBUILDING:
        assert " / ".join(f"{times[name, rate]:.2f}" for rate in RATES) in readme
