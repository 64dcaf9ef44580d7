"""`churnlab animate` as a user meets it: what it writes, what it leaves out and says so, what it refuses."""

import pytest
from PIL import Image

from support.commands import churnlab
from support.pictured import SCENARIO, run_all

QUICK = ("--seconds", 1, "--fps", 2, "--width", 400)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return run_all(tmp_path_factory.mktemp("dry"), SCENARIO)


def test_results_give_a_picture_of_three_strategies(folder):
    ended = churnlab("animate", folder, *QUICK)
    assert ended.returncode == 0, ended.stderr
    assert "Shown: failure seed 0 and training seed 0; name run folders for others." in ended.stdout
    assert "Left out: none; name others with --strategies." in ended.stdout
    with Image.open(folder / "animation.gif") as image:
        assert (image.n_frames, image.width) == (3, 400)
    again = churnlab("animate", folder, *QUICK, "--format", "apng", "--strategies", "none,CheckFree+")
    assert again.returncode == 0, again.stderr
    with Image.open(folder / "animation.png") as image:
        assert image.n_frames == 3


def test_runs_are_shown_in_the_order_named(folder, tmp_path):
    runs = [next(folder.glob(f"{name}-f1-*")) for name in ("checkfree_plus", "checkpoint")]
    ended = churnlab("animate", *runs, *QUICK, "--out", tmp_path / "two.gif")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("Written: ")
    assert not (runs[0] / "animation.gif").exists()


def test_runs_without_losses_are_strips_alone(tmp_path):
    folder = run_all(tmp_path, SCENARIO.replace("learner: curve", "learner: none").replace("[0, 1]", "[0]"))
    ended = churnlab("animate", folder, *QUICK)
    assert ended.returncode == 0, ended.stderr
    assert "No losses: " in ended.stdout
    with Image.open(folder / "animation.gif") as image:
        assert image.n_frames == 3


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--strategies", "chekpoint"), "--strategies chekpoint: no run of that strategy; nearest: checkpoint"),
        (("--out", "picture.jpg"), "--out picture.jpg: give the name of a GIF file (ending in .gif)"),
        (("--seconds", 100, "--fps", 50), "5,000 frames; allowed: at most 1,000"),
        (("--max-mb", 0.001), "above --max-mb 0.001: lower --width"),
        (("--fps", 0), "allowed: a whole number, at least 1"),
    ],
    ids=str,
)
def test_what_cannot_be_drawn_is_one_message(folder, tmp_path, options, expected):
    ended = churnlab("animate", folder, *QUICK[:2], "--width", 300, *options, folder=tmp_path)
    assert ended.returncode == 2
    assert expected in " ".join(ended.stderr.replace("│", " ").split())
    assert "Traceback" not in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == []


def test_an_empty_folder_is_refused(tmp_path):
    ended = churnlab("animate", tmp_path)
    assert ended.returncode == 2
    assert "contains no finished runs" in ended.stderr
