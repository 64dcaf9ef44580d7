"""`churnlab plot` as a user meets it: which files it leaves, what it leaves out and why, and what it refuses."""

from pathlib import Path

import pandas as pd
import pytest

from sim.cli.results import plot
from sim.reporting.registry import FigureRequest, drawable, figure_kinds
from sim.reporting.style import STYLE, caption_of
from sim.results import storage as results
from sim.results.selection import MissingError, comparable
from support.commands import churnlab
from support.pictured import SCENARIO, of_scenario, of_sweep, run_all
from support.sweeps import TINY, do_sweep, write_scenario

LEFT_OUT = {"branches", "checkpoint_interval", "reinit", "swapping", "nodes"}


@pytest.fixture(autouse=True)
def _coarse(monkeypatch):
    monkeypatch.setitem(STYLE, "savefig.dpi", 40)  # files are told by their names here, and must not take long


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return of_scenario(tmp_path_factory.mktemp("dry")).folder


def messages(capsys) -> dict[str, str]:
    """Printed messages by kind of figure."""
    return dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())


def drawn_kinds(printed: dict[str, str]) -> set[str]:
    return {kind for kind, words in printed.items() if not words.startswith("left out, ")}


def test_every_possible_kind_is_drawn_and_the_others_listed(folder, capsys):
    plot(folder)
    said = messages(capsys)
    assert set(said) == set(figure_kinds())
    assert drawn_kinds(said) == set(figure_kinds()) - LEFT_OUT
    assert "scenarios/checkpoint_interval.yaml" in said["checkpoint_interval"]
    assert "is replaced at once" in said["nodes"]
    names = {path.name for path in (folder / "figures").iterdir()}
    for kind in set(figure_kinds()) - LEFT_OUT:
        assert {f"{kind}.png", f"{kind}.pdf"} <= names
    assert {name for name in names if name.endswith(".csv")} == {
        *(f"loss_{against}{part}.csv" for against in ("time", "iteration") for part in ("", "_runs", "_failures")),
        "time_to_loss.csv", "money_to_loss.csv", "ledger.csv", "spikes.csv", "spikes_half_lives.csv",
    }  # fmt: skip
    assert len(results.load(folder).runs) == 8  # the figures' folder is taken for no run


def test_the_data_of_each_kind_count_as_a_part_done(folder):
    parts = []
    drawable(FigureRequest.of(results.load(folder)), ["ledger", "nodes"], part_done=lambda: parts.append("done"))
    assert len(parts) == 2  # also of one that cannot be drawn


def test_the_csv_is_what_is_drawn(folder, tmp_path):
    plot(folder, kinds=["loss", "ledger", "loss"], out=tmp_path / "new" / "folder")
    source = FigureRequest.of(results.load(folder))
    for kind in ("loss", "ledger"):
        for name, table in figure_kinds()[kind].tables(source).items():
            path = tmp_path / "new" / "folder" / f"{'_'.join(filter(None, (kind, name)))}.csv"
            pd.testing.assert_frame_equal(pd.read_csv(path), table, check_dtype=False)
    written = pd.read_csv(tmp_path / "new" / "folder" / "loss_iteration.csv")
    line = next(line for line in figure_kinds()["loss"].draw(source).axes[1].lines if line.get_label() == "CheckFree")
    assert list(line.get_ydata()) == pytest.approx(written[written["kind"] == "checkfree"]["loss_nats"].to_numpy())


def test_columns_have_units_and_captions_models_and_seeds(folder):
    source = FigureRequest.of(comparable(results.load(folder)))
    about = {"strategy", "kind", "series", "run", "failure_seed", "training_seed", "stage", "iteration", "baseline"}
    units = ("_hours", "_nats", "_usd", "_iterations", "iterations_since_recovery", "hours")
    for kind in set(figure_kinds()) - LEFT_OUT:
        for table in figure_kinds()[kind].tables(source).values():
            assert {name for name in table if not name.endswith(units) and not name.startswith("num_")} <= about
        words = caption_of(figure_kinds()[kind].draw(source))
        assert "Seconds: simulated, target model 'medium' (468M parameters)" in words
        assert "PARAMETRIC CURVE" in words
        assert "2 failure seeds and 1 training seed" in words


def test_one_run_of_a_folder_can_be_drawn(folder, capsys):
    run = next(folder.glob("checkfree-f0-*"))
    plot(run, kinds=["loss", "ledger"])
    assert (run / "figures" / "loss.pdf").read_bytes().startswith(b"%PDF")
    assert set(messages(capsys)) == {"loss", "ledger"}


def test_formats_and_labels_are_those_asked_for(folder, tmp_path, monkeypatch):
    plot(folder, kinds=["ledger"], out=tmp_path, formats="svg,pdf", width="column", x_label="Hours", title="Mine")
    assert {path.name for path in tmp_path.iterdir()} == {
        f"ledger.{end}" for end in ("svg", "pdf", "txt", "tex", "csv")
    }
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ValueError, match="--format pgf needs LaTeX to measure texts, and none of xelatex"):
        plot(folder, kinds=["ledger"], out=tmp_path / "pgf", formats="pgf")
    assert not (tmp_path / "pgf").exists()


def test_a_latex_that_fails_ends_in_a_message(folder, tmp_path, monkeypatch):
    program = tmp_path / "pdflatex"  # the only one installed
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="--format pgf: pdflatex failed"):
        plot(folder, kinds=["ledger"], out=tmp_path / "pgf", formats="pgf")
    assert not list((tmp_path / "pgf").glob("*.pgf"))


def test_swapping_from_one_pair_of_runs_is_drawn_only_if_named(tmp_path, capsys):
    folder = run_all(tmp_path, SCENARIO.replace("[0, 1]", "[0]"), "failures={kind: never}")
    plot(folder, out=tmp_path / "all")
    assert messages(capsys)["swapping"].startswith("left out, one pair of runs says little; --kind swapping draws it")
    plot(folder, kinds=["swapping"], out=tmp_path / "one")
    assert (tmp_path / "one" / "swapping.pdf").exists()


def test_slides_lie_beside_and_each_point_has_its_own(tmp_path_factory, tmp_path):
    swept = of_sweep(tmp_path_factory.mktemp("swept")).folder
    plot(swept, kinds=["ledger", "time_to_loss"], out=tmp_path, slide=True)
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "ledger_slide_1.png", "ledger_slide_2.png", "time_to_loss_slide.png",
    }  # fmt: skip
    plot(swept, kinds=["time_to_loss"], field="strategies[checkpoint].interval_iterations", out=tmp_path)
    assert (tmp_path / "time_to_loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"kinds": ["los"]},
            "--kind los: no such figure; nearest: loss; allowed: branches, checkpoint_interval, ledger, loss",
        ),
        ({"kinds": ["loss", "swapping"]}, "--kind swapping cannot be drawn from .*: no failure-free run"),
        ({"kinds": ["nodes"]}, r"--kind nodes cannot be drawn .*provisioning_seconds"),
        ({"field": "failures.rate_per_hour"}, "--x failures.rate_per_hour: no such swept field; nothing was swept"),
        (
            {"width": "wide"},
            r"--width wide: allowed: column \(3.3\), .*, or inches from 2.5 to 20",
        ),
        ({"width": "nan"}, r"--width nan: allowed"),
        ({"width": "text", "slide": True}, "--width and --slide contradict each other"),
        ({"formats": "png,jpg"}, "--format jpg: no such format; nearest: png"),
        ({"kinds": ["loss"], "x_label": "hours"}, "--xlabel: the panels of loss have different x axes"),
        ({"out": Path(__file__)}, r"--out .*\.py: found a file"),
    ],
    ids=str,
)
def test_an_impossible_figure_is_reported_and_not_written(folder, tmp_path, options, expected):
    with pytest.raises(ValueError, match=expected):
        plot(folder, **{"out": tmp_path / "out", **options})
    with pytest.raises(ValueError, match="contains no finished runs"):
        plot(tmp_path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_time_or_outcomes_alone_give_the_figures_they_can(tmp_path, capsys):
    plot(run_all(tmp_path, SCENARIO.replace("learner: curve", "learner: none")))
    printed = messages(capsys)
    assert drawn_kinds(printed) == {"ledger"}
    assert "no run reaches its target loss" in printed["time_to_loss"]
    sweep = "sweep: {grid: {failures.rate_per_hour: [0.3, 0.6]}, replicates: 2, keep: outcomes}\n"
    text = SCENARIO.replace("seeds: {failures: [0, 1]}\n", sweep)
    do_sweep(write_scenario(tmp_path, text), tmp_path / "swept", tmp_path / "cache")
    plot(tmp_path / "swept" / "dry")
    assert drawn_kinds(messages(capsys)) == {"time_to_loss", "money_to_loss", "ledger"}


def test_runs_of_several_commands_without_a_last_are_refused(tmp_path):
    out = run_all(tmp_path, SCENARIO)
    run_all(tmp_path, SCENARIO, "failures.rate_per_hour=0.5")
    (out / "comparison.csv").unlink()
    with pytest.raises(ValueError, match="agree in strategy and seeds but not in their scenario"):
        plot(out)


def test_where_nothing_can_be_drawn_that_is_an_error(folder, tmp_path, monkeypatch):
    def missing(source):
        raise MissingError("it is not there")

    only = {"ledger": figure_kinds()["ledger"].__class__("ledger", "hours", missing, figure_kinds()["ledger"].figure)}
    monkeypatch.setattr("sim.reporting.registry.figure_kinds", lambda: only)
    with pytest.raises(ValueError, match="no figure can be drawn"):
        plot(folder, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_ends_with_2_and_its_help_lists_all_kinds(folder):
    done = churnlab("plot", folder, "--kind", "loos")
    assert done.returncode == 2
    assert done.stderr.startswith("--kind loos: no such figure; nearest: loss")
    assert len(done.stderr.splitlines()) == 1
    words = " ".join(churnlab("plot", "--help", folder=folder).stdout.replace("│", " ").split())
    assert f"Kinds: {', '.join(figure_kinds())}." in words


def test_runs_that_are_validated_once_at_other_times_have_figures(tmp_path):
    """Their mean over time has no instant in common, but each run has its point."""
    text = TINY.replace("training:\n", "training:\n  learner: curve\n").replace(
        "interval_steps: 6", "interval_steps: 100"
    )
    write_scenario(tmp_path, text.replace("iterations_per_step: 40", "iterations_per_step: 4"))
    for command in ("sweep tiny.yaml --jobs 1", "plot results/tiny --kind loss", "report results/tiny"):
        ended = churnlab(*command.split(), folder=tmp_path)
        assert ended.returncode == 0, ended.stderr
