"""The pretended training: which way its effects go, and the one rule of a stage that goes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.curve import SETBACK_PER_EDIT, SWAP_SLOWDOWN, CurveTraining
from models.recipe import PLAIN, Recipe
from models.spec import swapped_routes
from models.training_state import Edit, Position, Term
from support.trainings import AVERAGE_2, COPY_1, FRESH_4, as_of, start

TRAINING = CurveTraining(start().lineage.spec)
LOSS = TRAINING.validation_loss
NUM_STAGES = 6


def test_edits_and_swapped_routes_cost_their_share_of_progress():
    for edit in (AVERAGE_2, COPY_1, FRESH_4, Edit(2, "sum", terms=(Term(1, 0.5), Term(3, 0.5)))):
        assert LOSS(start().after(100).edited(edit)) == pytest.approx(LOSS(start().after(100 - 100 * SETBACK_PER_EDIT)))
    swapped = TRAINING.root(swapped_routes(NUM_STAGES)).after(100)
    assert LOSS(swapped) == pytest.approx(LOSS(start().after(round(100 * (1 - SWAP_SLOWDOWN)))))
    here = start().after(100)
    terms = (Term(3, 1.5, start().after(40).moment), Term(3, -0.5, start().after(20).moment))
    assert LOSS(here.edited(Edit(3, "sum", terms=terms))) == LOSS(here.edited(AVERAGE_2))


def test_a_stage_rolled_back_costs_its_share_of_the_progress():
    saved = start().after(40)
    here = saved.after(100)
    gone_back = here.edited(as_of(3, here.moment_of(saved)))
    assert LOSS(gone_back) == pytest.approx(LOSS(start().after(90)))  # 60 steps, a sixth of them
    assert LOSS(gone_back.after(110)) == pytest.approx(LOSS(start().after(100)))
    again = gone_back.after(130)  # progress 120, and 108 at the next moment
    assert LOSS(again.edited(as_of(0, gone_back.after(118).moment))) == pytest.approx(LOSS(start().after(118)))


def test_a_recipe_slows_progress_by_what_it_leaves_out():
    half, around = Recipe(rows=(0, 1)), Recipe(routes=((1, 2, 4, 5, 6),))
    for recipe, share in ((half, 1 / 2), (around, 5 / 6)):
        entered = start().after(60).entered(recipe)
        assert LOSS(entered) == LOSS(start().after(60))
        assert LOSS(entered.after(120).entered(PLAIN).after(150)) == pytest.approx(LOSS(start().after(90 + 60 * share)))
    then = start().entered(half).after(40)
    back = then.entered(PLAIN).after(60).edited(as_of(3, then.after(20).moment))  # from progress 40 to that of 10
    assert LOSS(back) == pytest.approx(LOSS(start().after(35)))


@given(st.integers(0, 60), st.lists(st.sampled_from([AVERAGE_2, FRESH_4]), max_size=3), st.integers(0, 60))
def test_rolling_back_never_helps_and_is_free_without_progress(steps, edits, more):
    saved = start().after(steps)
    here: Position = saved.edited(*edits).after(steps + more)
    assert LOSS(here.edited(as_of(2, saved.moment))) >= LOSS(here)
    assert LOSS(here.edited(as_of(2, here.moment))) == LOSS(here)
