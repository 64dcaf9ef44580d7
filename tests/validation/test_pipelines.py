"""Textbook formulas of pipeline schedules.

p stages of t_f and t_b seconds, m microbatches: GPipe (Huang et al. 2019, arXiv 1811.06965), 1F1B (PipeDream-flush) and
its interleaved form (Narayanan et al. 2021, arXiv 2104.04473).
"""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.spec import plain_routes
from sim.workload.config import IterationPlan
from support.builders import PricedIteration, a_link, a_pipeline, a_site, an_iteration
from support.examples import examples

seconds = st.floats(0.01, 10.0)
schedules = st.sampled_from(["gpipe", "1f1b"])  # the ones that these formulas describe; fifo takes longer
pipeline_shapes = (st.integers(2, 8), st.integers(1, 20), seconds, seconds, schedules)
uneven_stages = st.lists(st.tuples(seconds, seconds), min_size=2, max_size=6)


def to_the_tick(expected_seconds: float) -> object:
    """Every duration is rounded to 15 ns, and some hundreds of them follow each other."""
    return pytest.approx(expected_seconds, rel=1e-9, abs=5e-6)


@settings(max_examples=examples(15, 40))
@given(*pipeline_shapes)
def test_gpipe_and_1f1b_take_m_plus_p_minus_1_slots(p, m, forward, backward, schedule):
    """Of which the bubble is p - 1."""
    limits = (None,) if schedule == "gpipe" else (None, p, p + 1, 2 * p, 3 * p)
    for limit in limits:
        iteration = a_pipeline(p, m, forward, backward, schedule, max_in_flight=limit)
        assert iteration.seconds == to_the_tick((m + p - 1) * (forward + backward))
        busy_share = iteration.split.productive_seconds * (p + 1) / p / iteration.seconds  # stage 0 has nothing to do
        assert 1 - busy_share == pytest.approx((p - 1) / (m + p - 1), abs=1e-6)


@settings(max_examples=examples(15, 40))
@given(st.integers(2, 6), st.integers(1, 4), st.integers(2, 4), seconds, seconds)
def test_interleaving_v_chunks_fills_and_drains_v_times_as_fast(p, groups, v, forward, backward):
    """Each stage holds its warm-up and one chunk: the i-th of p 2 (p - i) + (v - 1) p + 1 chunks, or all there are."""
    m = groups * p
    iteration = a_pipeline(p, m, forward, backward, "interleaved_1f1b", chunks_per_stage=v)
    assert iteration.seconds == to_the_tick((m + (p - 1) / v) * (forward + backward))
    busy_share = iteration.split.productive_seconds * (p + 1) / p / iteration.seconds
    assert 1 - busy_share == pytest.approx((p - 1) / (v * m + p - 1), abs=1e-6)
    for i in range(1, p + 1):
        assert held_at_most(iteration, i) == min(m * v, 2 * (p - i) + (v - 1) * p + 1)


@given(st.integers(2, 8), st.integers(1, 20), seconds, schedules)
def test_a_head_as_slow_as_a_stage_is_one_more_stage(p, m, forward, schedule):
    iteration = a_pipeline(p, m, forward, 2 * forward, schedule, head_seconds=3 * forward)
    assert iteration.seconds == to_the_tick((m + p) * 3 * forward)


@given(st.integers(2, 8), st.integers(1, 20), st.floats(0.0, 20.0), st.booleans())
def test_gpipe_fills_and_drains_through_every_hop(p, m, hop_seconds, back_to_embedding):
    """2 (p - 1) hops between stages, one from the embedding and one to it; two more where it also holds the head."""
    loss_at = "embedding_stage" if back_to_embedding else "last_stage"
    iteration = a_pipeline(p, m, schedule="gpipe", hop_seconds=hop_seconds, loss_at=loss_at)
    num_hops = 2 * (p - 1) + 2 + (2 if back_to_embedding else 0)
    assert iteration.seconds == to_the_tick(3 * (m + p - 1) + num_hops * hop_seconds)


def held_at_most(iteration: PricedIteration, stage: int) -> int:
    """Most microbatches (of v chunks: parts of microbatches) that a stage holds; it does one thing at a time."""
    held = most = 0
    for operation in sorted(iteration.operations, key=lambda operation: operation.start_seconds):
        if operation.stage == stage:
            held += 1 if operation.kind == "forward" else -1
            most = max(most, held)
    return most


@given(st.integers(2, 7), st.integers(1, 14), seconds, seconds)
def test_stage_i_of_p_holds_p_minus_i_plus_1_microbatches(p, m, forward, backward):
    """In 1F1B; in GPipe all."""
    one_f_one_b, gpipe = (a_pipeline(p, m, forward, backward, schedule) for schedule in ("1f1b", "gpipe"))
    for i in range(1, p + 1):
        assert held_at_most(one_f_one_b, i) == min(m, p - i + 1)
        assert held_at_most(gpipe, i) == m


def uneven(stages: list[tuple[float, float]], m: int, schedule: str) -> PricedIteration:
    return an_iteration(a_site(len(stages), m, schedule=schedule, stages=stages))


@given(uneven_stages, st.integers(1, 12), st.sampled_from(["gpipe", "1f1b", "fifo"]))
def test_uneven_stages_take_at_least_their_path_and_work(stages, m, schedule):
    """max over k of Σ_{i<k} (f + b)_i + m (f + b)_k: a stage begins when the first microbatch has come to it."""
    works = [forward + backward for forward, backward in stages]
    bound = max(sum(works[:k]) + m * work for k, work in enumerate(works))
    assert uneven(stages, m, schedule).seconds >= max(bound, sum(works)) * (1 - 1e-6)


@given(uneven_stages, st.integers(1, 12))
def test_gpipe_passes_its_slowest_stage_per_microbatch_each_way(stages, m):
    """Σ f + (m - 1) max f, the same for b: with one stage slowest both ways, Σ (f + b) + (m - 1) max (f + b)."""
    each_way = [sum(way) + (m - 1) * max(way) for way in zip(*stages, strict=True)]
    assert uneven(stages, m, "gpipe").seconds == to_the_tick(sum(each_way))


@given(st.integers(2, 6), st.integers(1, 12), st.floats(1.0, 5.0), schedules)
def test_a_slowest_stage_at_the_end_paces_both_schedules(p, m, slowness, schedule):
    stages = [(1.0, 2.0)] * (p - 1) + [(slowness, 2 * slowness)]
    expected = sum(forward + backward for forward, backward in stages) + (m - 1) * 3 * slowness
    assert uneven(stages, m, schedule).seconds == to_the_tick(expected)


def test_1f1b_hides_fast_stages_behind_a_slow_first_one():
    """Σ (f + b) + (m - 1) max (f + b) is gpipe's time, and no lower bound of 1F1B's."""
    stages = [(10.0, 10.0), (1.0, 1.0)]
    assert uneven(stages, 2, "gpipe").seconds == 42.0
    assert uneven(stages, 2, "1f1b").seconds == 40.0


@pytest.mark.parametrize(("backward", "ratio"), [(2.0, 4 / 3), (1.0, 3 / 2), (3.0, 5 / 4)])
def test_redundant_forwards_cost_2f_plus_b_over_f_plus_b(backward, ratio):
    """Uniform stages, nothing hidden in bubbles: a third at b = 2 f."""

    def slot_seconds(shadow_forwards: float) -> float:
        plans = (IterationPlan(m, plain_routes(4), shadow_forwards=shadow_forwards) for m in (40, 20))
        more, fewer = (
            a_pipeline(4, plan.num_microbatches, backward_seconds=backward, plan=plan).seconds for plan in plans
        )
        return (more - fewer) / 20

    assert slot_seconds(1.0) / slot_seconds(0.0) == pytest.approx(ratio)


def windowed(p: int, m: int, in_flight: int, forward: float, backward: float, hop_seconds: float) -> float:
    shape = (p, m, forward, backward, "fifo")
    return a_pipeline(*shape, hop_seconds=hop_seconds, max_in_flight=in_flight).seconds


@given(st.integers(2, 7), st.integers(1, 20), st.integers(1, 6), seconds, seconds, st.floats(0.0, 10.0))
@example(6, 6, 3, 0.15, 0.3, (25.5 - 6 * 0.45) / 14 - 3 * 0.3)  # 2 × 25.5 + 2 × 0.3 = 51.6 s
def test_a_window_of_k_goes_round_m_over_k_times(p, m, in_flight, forward, backward, longer):
    """ceil(m / K) round trips, and behind them the rest of the last window, spaced by the longest operation.

    Exact where hops are so long that no stage has forwards and backwards waiting at once.
    """
    spacing = max(forward, backward)
    hop_seconds = in_flight * spacing + longer
    round_trip = 2 * (p + 1) * hop_seconds + p * (forward + backward)
    expected = -(-m // in_flight) * round_trip + (m - 1) % in_flight * spacing
    assert windowed(p, m, in_flight, forward, backward, hop_seconds) == to_the_tick(expected)


@given(st.integers(2, 7), st.integers(1, 20), st.integers(1, 6), seconds, seconds, st.floats(0.0, 10.0))
def test_a_window_on_slow_links_is_spaced_by_a_transmission(p, m, in_flight, stage_seconds, transmission, longer):
    """What goes from one node to the same other goes one after the other: the slowest step, there or in a stage."""
    spacing = max(stage_seconds, transmission)
    latency = in_flight * spacing + longer
    site = a_site(p, m, stage_seconds, stage_seconds, "fifo", max_in_flight=in_flight)
    beta = site.costs.activation_bytes / transmission
    network = {"same_region": a_link(latency, beta)}
    site = a_site(p, m, stage_seconds, stage_seconds, "fifo", max_in_flight=in_flight, network=network)
    round_trip = 2 * (p + 1) * (latency + transmission) + 2 * p * stage_seconds
    expected = -(-m // in_flight) * round_trip + (m - 1) % in_flight * spacing
    assert an_iteration(site).seconds == to_the_tick(expected)


@given(st.integers(2, 7), st.integers(1, 4), st.integers(1, 6), seconds, st.floats(1.0, 3.0))
def test_short_hops_put_a_window_off_by_4_percent_at_most(p, rounds, in_flight, forward, hop_turns):
    """Shorter hops make forwards wait for backwards, but not for long: K at most p, a hop of f + b or more."""
    in_flight, backward, hop_seconds = min(in_flight, p), 2 * forward, hop_turns * 3 * forward
    round_trip = 2 * (p + 1) * hop_seconds + p * (forward + backward)
    formula = rounds * round_trip + (in_flight - 1) * backward
    simulated = windowed(p, rounds * in_flight, in_flight, forward, backward, hop_seconds)
    assert formula * (1 - 1e-6) <= simulated <= 1.04 * formula
