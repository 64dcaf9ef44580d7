"""Series of figures: their styles."""

from sim.reporting.series import styles_by_kind


def test_no_two_of_many_series_share_colour_and_line():
    kinds = {"a": "none", "b": "checkpoint", **{f"own {n}": "elastic" for n in range(12)}}
    drawn = [(style.colour, style.line) for style in styles_by_kind(kinds).values()]
    assert len(set(drawn)) == len(kinds)
