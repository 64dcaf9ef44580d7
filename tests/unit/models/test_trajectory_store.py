"""The store by itself: its budget, what goes first, older formats, and a disk that refuses."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from models.trainer import StepResult
from models.trajectory_store import Keyframe, LineResults, TrajectoryStore

KILOBYTE = b"x" * 1000


def filled(folder, budget_bytes: int = 10**9) -> TrajectoryStore:
    """A trunk with states at 1 to 4, and a branch with states at 3 and 4, in the order of their steps."""
    store = TrajectoryStore(folder, budget_bytes)
    for step in range(1, 5):
        store.commit("trunk", LineResults({step: StepResult(1.0, (0.5,))}), Keyframe(step, KILOBYTE))
        if step > 2:
            store.commit(
                "branch", LineResults({step: StepResult(2.0, (0.5,))}), Keyframe(step, KILOBYTE, is_branch=True)
            )
    return store


def kept(store: TrajectoryStore) -> tuple[list[int], list[int]]:
    return store.keyframe_steps("trunk"), store.keyframe_steps("branch")


@pytest.mark.parametrize(
    ("budget_bytes", "left"),
    [
        (6000, ([1, 2, 3, 4], [3, 4])),
        (5999, ([1, 2, 3, 4], [4])),
        (4000, ([1, 2, 3, 4], [])),
        (2500, ([3, 4], [])),
        (0, ([], [])),
    ],
)
def test_branch_states_are_evicted_first_then_the_least_recent(tmp_path, budget_bytes, left):
    store = filled(tmp_path)
    store.prune(budget_bytes)
    assert kept(store) == left
    assert len(store.read("trunk").steps) == 4
    assert len(store.read("branch").steps) == 2
    assert len(list(store.keyframe_folder.iterdir())) == sum(map(len, left))


def test_states_in_use_stay_and_those_used_last_stay_longest(tmp_path):
    store = filled(tmp_path / "in use")
    store.prune(0, lambda: {("branch", 3), ("trunk", 1)})
    assert kept(store) == ([1], [3])
    store = filled(tmp_path / "used last")
    assert store.read_keyframe("trunk", 1) == KILOBYTE
    store.prune(1000)
    assert kept(store) == ([1], [])


def test_a_commit_keeps_to_the_budget_and_info_counts_the_rest(tmp_path):
    small = filled(tmp_path / "small", 2000)
    assert small.keyframe_bytes() <= 2000
    assert small.info().num_steps == 6
    info = filled(tmp_path / "large").info()
    assert (info.num_lines, info.num_steps, info.num_keyframes, info.keyframe_bytes) == (2, 6, 6, 6000)
    assert info.database_bytes > 0


@pytest.mark.parametrize("has_column", [False, True], ids=["older format", "interrupted update"])
def test_a_store_of_the_older_format_is_updated(tmp_path, has_column):
    filled(tmp_path).close()
    with sqlite3.connect(tmp_path / "trajectory.sqlite") as database:
        if not has_column:
            database.execute("ALTER TABLE keyframes DROP COLUMN is_branch")
        database.execute("PRAGMA user_version = 1")
    database.close()
    again = TrajectoryStore(tmp_path)
    assert kept(again) == ([1, 2, 3, 4], [3, 4])
    assert again.read_keyframe("branch", 4) == KILOBYTE
    assert len(again.read("trunk").steps) == 4


def test_a_damaged_state_is_forgotten_not_used(tmp_path):
    store = filled(tmp_path)
    store._database.execute("PRAGMA query_only = 1")
    assert store.read_keyframe("trunk", 2) == KILOBYTE  # a failure to record the use is ignored
    store._database.execute("PRAGMA query_only = 0")
    for file in store.keyframe_folder.iterdir():
        file.write_bytes(KILOBYTE[:-1] + b"y")
    assert store.read_keyframe("trunk", 4) is None
    assert kept(store)[0] == [1, 2, 3]


def test_a_state_that_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    store = TrajectoryStore(tmp_path)
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match=r"cannot write the cache of training states .*No space left.*free some space"):
        store.commit("trunk", LineResults({1: StepResult(1.0, (0.5,))}), Keyframe(1, KILOBYTE))
    assert list(store.keyframe_folder.iterdir()) == []
    assert not store.read("trunk").steps


def version(folder: Path, number: int) -> None:
    with closing(sqlite3.connect(folder / "trajectory.sqlite")) as database:
        database.execute(f"PRAGMA user_version = {number}")


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(4096, len(data), 512):
        data[at] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: version(folder, 9), "has format 9, this version writes 2"),
        (lambda folder: (folder / "trajectory.sqlite").write_bytes(b"not a database" * 1000), "is damaged"),
        (lambda folder: os.truncate(folder / "trajectory.sqlite", 5000), "is damaged"),
        (lambda folder: flipped(folder / "trajectory.sqlite"), "is damaged"),
    ],
    ids=["newer version", "another file", "truncated", "flipped bits"],
)
def test_an_unusable_store_is_set_aside_and_named(tmp_path, caplog, spoil, reason):
    filled(tmp_path).close()
    spoil(tmp_path)
    spoilt = (tmp_path / "trajectory.sqlite").read_bytes()
    with closing(TrajectoryStore(tmp_path)) as again:
        assert kept(again) == ([], [])
        assert not again.read("trunk")
    (message,) = caplog.messages
    assert message.startswith(f"the cache of training states at {tmp_path} {reason}")
    assert "set aside as trajectory.sqlite.aside-1" in message
    assert (tmp_path / "trajectory.sqlite.aside-1").read_bytes() == spoilt
    assert len(list((tmp_path / "keyframes.aside-1").iterdir())) == 6


@pytest.mark.parametrize("name", ["../../precious", "{absolute}", "sub/../../../precious", "..", ""])
def test_files_outside_its_folder_are_never_read_or_deleted(tmp_path, name):
    precious = tmp_path / "precious"
    precious.write_bytes(KILOBYTE)
    store = filled(tmp_path / "cache")
    with store._database:
        store._database.execute("UPDATE keyframes SET file = ?", (name.format(absolute=precious),))
    assert store.read_keyframe("trunk", 4) is None
    assert store.keyframe_steps("branch") == []
    store.commit("trunk", LineResults(), Keyframe(3, KILOBYTE))
    store.prune(0)
    assert precious.read_bytes() == KILOBYTE
    assert kept(store) == ([], [])
