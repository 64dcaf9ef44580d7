"""Moving pictures of runs: frames, colours of states, ticks at failures, files that decode to what was drawn."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from sim.reporting.animated_image import animated
from sim.reporting.animation import COLOURS, Canvas, frames, raster
from sim.reporting.tracks import tracks_of
from sim.results.activity import STATES
from support.pictured import SCENARIO, run_all

WIDTH = 400


@pytest.fixture(scope="module")
def tracks(tmp_path_factory):
    folder = run_all(tmp_path_factory.mktemp("animated"), SCENARIO.replace("failures: [0, 1]", "failures: [0]"))
    return tracks_of([folder])[0]


@pytest.fixture(scope="module")
def drawn(tracks):
    return list(frames(tracks, WIDTH, 4))


def pixels(image):
    return np.asarray(image.convert("RGB")).astype(int)


def is_of(image, colour):
    """Where an image has a colour."""
    return (np.abs(pixels(image) - np.round(255 * np.array(to_rgb(colour)))) <= 1).all(axis=2)


def test_the_first_frame_is_complete_and_the_others_grow(tracks, drawn):
    canvas = Canvas(tracks, WIDTH)
    assert len(drawn) == 5
    assert {image.size for image in drawn} == {(WIDTH, canvas.height)}
    assert (pixels(drawn[0]) == pixels(drawn[-1])).all()
    shares = [is_of(image, COLOURS["computing"]).mean() for image in drawn[1:]]
    assert shares == sorted(shares)
    for number, image in enumerate(drawn[1:], start=1):
        x = canvas.x_of(canvas.hours * number / 4)
        _, top, bottom = next(canvas.strips())
        assert not is_of(image, COLOURS["computing"])[top:bottom, x + 2 :].any()


def test_the_states_of_a_run_have_their_colours(tracks, drawn):
    canvas = Canvas(tracks, WIDTH)
    for states, (_, top, bottom) in zip(canvas.rasters, canvas.strips(), strict=True):
        strip = drawn[0].crop((canvas.left, top, canvas.right, bottom))
        for number in (number for number in np.unique(states) if number >= 0 and (states == number).mean() > 0.02):
            assert is_of(strip, COLOURS[STATES[number]]).any()
    grey = [Image.new("RGB", (1, 1), colour).convert("L").getpixel((0, 0)) for colour in COLOURS.values()]
    assert np.diff(sorted(grey)).min() > 25


def test_a_failure_is_a_tick_at_its_time_in_its_row(tracks):
    canvas = Canvas(tracks, 1200)
    image = next(frames(tracks, 1200, 1))
    checked = 0
    for one, top, bottom in canvas.strips():
        events = one.records.events
        for event in events[events["kind"] == "failure"].itertuples():
            x = canvas.x_of(event.time_seconds / 3600)
            y = top + round((bottom - top) * (event.stage + 0.5) / len(one.rows))
            assert (pixels(image)[y, x - 2 : x + 3].sum(axis=1) < 60).any()
            checked += 1
    assert checked > 10


def test_a_raster_has_the_end_of_a_run_and_no_other_gap(tracks):
    longest = max(one.hours for one in tracks)
    for one in tracks:
        states = raster(one, longest, 200)
        end = round(200 * one.hours / longest)
        assert (states[:, : end - 1] >= 0).all()
        assert (states[:, end + 1 :] == -1).all()


def test_the_status_counts_what_happened_so_far(tracks):
    one = tracks[0]
    assert one.name == "checkpointing"
    assert one.status(0.0) == "0 iterations"
    assert one.status(one.hours).startswith(f"{int(one.records.iterations['iteration'].max()):,} iterations, ")
    failures = (one.records.events["kind"] == "failure").sum()
    assert f"{failures} stages lost" in one.status(one.hours)
    assert one.status(one.hours).endswith(f"end after {one.hours:.1f} h")
    assert "end after" not in one.status(one.hours / 2)


@pytest.mark.parametrize("format_", ["gif", "apng"])
def test_a_file_decodes_to_its_frames_and_plays_for_ever(drawn, format_):
    milliseconds = [500, 100, 100, 100, 900]
    image = Image.open(io.BytesIO(animated(drawn, milliseconds, format_)))
    assert image.n_frames == 5
    assert image.info["loop"] == 0
    for number, wanted in enumerate(drawn):
        image.seek(number)
        assert image.info["duration"] == milliseconds[number]
        assert np.abs(pixels(image) - pixels(wanted)).mean() < 1.0
        assert (is_of(image, "white") == is_of(wanted, "white")).mean() > 0.99
    assert image.size == drawn[0].size
