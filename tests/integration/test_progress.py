"""Progress of long commands: a line a minute where there is no terminal, with the time left at the pace so far."""

import pytest
import typer

from sim.cli import pace
from sim.cli.pace import Pace, working
from sim.cli.progress import Display
from sim.experiments.folder import SweepProgress


class Clock:
    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    return clock


def test_time_left_is_that_of_the_present_work(clock):
    its = Pace()
    assert its.time_left("steps", 10, 50) == ""
    clock.seconds = 20.0
    assert its.time_left("steps", 20, 50) == "about 60 s left"
    clock.seconds = 30.0
    assert its.time_left("runs", 0, 4) == ""
    clock.seconds = 330.0
    assert its.time_left("runs", 1, 4) == "about 15 min left"
    assert its.time_left("runs", 4, 4) == ""


def test_a_sweep_in_a_log_file_has_one_line_a_minute(clock, capsys):
    display = Display()
    for second in range(181):
        clock.seconds = float(second)
        display.progressed(SweepProgress(4, second // 60, 0, 4, 10 * second, 3000 - 10 * second))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("After")]
    assert lines == [
        "After 60 s: 1 of 4 runs done, 600 of 3,000 training steps, about 4 min left",
        "After 2 min: 2 of 4 runs done, 1,200 of 3,000 training steps, about 3 min left",
        "After 3 min: 3 of 4 runs done, 1,800 of 3,000 training steps, about 2 min left",
    ]
    for second in range(1000, 1121):
        clock.seconds = float(second)
        display.simulated(second - 1000, 200)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("After")]
    assert lines[-1] == "After 19 min: 120 of 200 simulations done, about 80 s left"


def test_work_in_parts_is_noted_while_it_lasts(monkeypatch, capsys):
    monkeypatch.setattr(pace, "SECONDS_BETWEEN_LINES", 0.01)
    with working("figures drawn", 3) as part_done:
        part_done()
        for _ in range(500):
            pace.time.sleep(0.01)
            if "figures drawn, 1 of 3" in (printed := capsys.readouterr().out):
                break
    assert "about" in printed


@pytest.mark.parametrize(("writes", "kept"), [(True, "Finished runs and nearly all"), (False, "")])
def test_an_interrupt_says_what_is_kept_unless_it_was_a_dry_run(writes, kept, capsys):
    with pytest.raises(typer.Exit) as ended, Display(writes):
        raise KeyboardInterrupt
    assert ended.value.exit_code == 130
    told = capsys.readouterr().err
    assert told.startswith("Interrupted.")
    assert kept in told
    assert writes == ("kept" in told)
