"""Names of training states: what they hold, which are equal, and which state lies on the way to which."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.recipe import Recipe
from models.training_state import Edit, GradientNormWeights, Lineage, Moment, Position, Term
from support.trainings import AVERAGE_2, COPY_1, FRESH_4, RECIPES, as_of, start

RELEASED = Edit(
    3, "average", (2, 4), GradientNormWeights(exponent=1.0, after_clip=True, epsilon=1e-4), optimizer="average"
)


def test_names_of_states_are_those_of_earlier_versions():
    """The store knows states by them."""
    assert [edit.as_text() for edit in (AVERAGE_2, RELEASED, COPY_1, FRESH_4)] == [
        '2:average:(1, 3):{"exponent":2.0,"after_clip":false,"epsilon":0.0}:fresh:1.1:None',
        '3:average:(2, 4):{"exponent":1.0,"after_clip":true,"epsilon":0.0001}:average:1.0:None',
        "1:copy:(2,):-:average:1.2:5.0",
        "4:fresh:():-:fresh:1.0:None",
    ]
    assert start().lineage.key == "90f9317f77b5d106d808f835b1d3ee02"
    edited = start().after(7).edited(AVERAGE_2, FRESH_4).after(12).edited(RELEASED, COPY_1)
    assert edited.lineage.key == "a18ed5513046173b648f1db8ad1cc527"


def test_a_kept_norm_is_in_the_name_the_default_is_not():
    own = replace(RELEASED, gradient_norm="own")
    assert own.as_text() == f"{RELEASED.as_text()}:own norm"
    assert replace(RELEASED, gradient_norm="sources").as_text() == RELEASED.as_text()
    with pytest.raises(ValueError, match="gradient_norm is 'sources' or 'own', not 'none'"):
        replace(RELEASED, gradient_norm="none")


def test_every_part_of_a_sum_is_in_its_name():
    edit = Edit(2, "sum", terms=(Term(2, 1.5, Moment(0, 3)), Term(2, -0.5, Moment(0, 1))), optimizer="older")
    (one, two) = edit.terms
    others = [
        replace(edit, terms=(two, one)),
        replace(edit, terms=(one,)),
        replace(edit, optimizer="average"),
        replace(edit, terms=(one, replace(two, share=0.5))),
        replace(edit, terms=(one, replace(two, stage=3))),
        replace(edit, terms=(one, replace(two, moment=Moment(1, 1)))),
        replace(edit, terms=(one, replace(two, moment=Moment(0, 2)))),
        replace(edit, terms=(one, Term(3, -0.5))),
    ]
    texts = [each.as_text() for each in (edit, *others)]
    assert len(set(texts)) == len(texts)
    assert texts[0] == "2:sum:():-:older:1.0:None:1.5*2@0,3:-0.5*2@0,1"
    whole, real = (Edit(2, "sum", terms=(Term(1, share), Term(3, 0.5))) for share in (1, 1.0))
    assert whole == real
    assert start().after(5).edited(whole) == start().after(5).edited(real)


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        ("terms go with rule 'sum'", {"rule": "sum"}),
        ("terms go with rule 'sum'", {"rule": "fresh", "terms": (Term(1, 1.0),)}),
        ("does not fit sources", {"rule": "sum", "sources": (1,), "terms": (Term(1, 1.0),)}),
        ("weights go with", {"rule": "sum", "terms": (Term(1, 1.0),), "weights": GradientNormWeights()}),
        ("its own source", {"rule": "sum", "terms": (Term(1, 0.5), Term(2, 0.5))}),
        ("its own source", {"rule": "copy", "sources": (2,)}),
        ("shares are finite and not 0", {"rule": "sum", "terms": (Term(1, 0.0),)}),
        ("shares are finite and not 0", {"rule": "sum", "terms": (Term(1, float("nan")),)}),
        ("stage 0 and stages of layers", {"rule": "sum", "terms": (Term(1, 0.5), Term(0, 0.5))}),
        ("stage 0 and stages of layers", {"rule": "sum", "terms": (Term(2, 1.0, Moment(0, 0)),), "stage": 0}),
        ("a first term that has a moment", {"rule": "sum", "terms": (Term(1, 1.0),), "optimizer": "older"}),
        ("a first term that has a moment", {"rule": "copy", "sources": (1,), "optimizer": "older"}),
    ],
)
def test_an_edit_that_contradicts_itself_is_refused(message, wrong):
    with pytest.raises(ValueError, match=message):
        Edit(**{"stage": 2, **wrong})


def test_a_stage_may_be_its_own_source_as_it_was():
    for stage in (0, 2):
        assert as_of(stage, Moment(0, 3)).goes_back_to == Moment(0, 3)
    assert AVERAGE_2.goes_back_to is None
    assert Edit(2, "sum", terms=(Term(1, 1.0, Moment(0, 3)),)).goes_back_to is None
    assert Edit(2, "sum", terms=(Term(2, 2.0, Moment(0, 3)),)).goes_back_to is None
    twice = (Term(2, 1.0, Moment(0, 3)), Term(2, 1.0, Moment(0, 2)))
    assert Edit(2, "sum", terms=twice).goes_back_to is None


def test_a_moment_separates_before_and_after_edits_of_a_step():
    before = start(iterations_per_step=3).after(14)
    one = before.edited(AVERAGE_2)
    two = one.edited(FRESH_4)
    assert [position.moment for position in (before, one, two)] == [(0, 4), (1, 4), (2, 4)]
    later = two.after(20).edited(COPY_1)
    assert later.moment == (3, 6)
    assert [later.moment_of(position) for position in (before, one, two, later)] == [(0, 4), (1, 4), (2, 4), (3, 6)]


@pytest.mark.parametrize(
    "moment", [Moment(0, 6), Moment(1, 4), Moment(1, 9), Moment(2, 8), Moment(3, 9), Moment(-1, 0)]
)
def test_an_edit_cannot_refer_to_what_is_not_on_the_way_to_it(moment):
    here = start().after(5).edited(AVERAGE_2).after(8)
    for good in (Moment(0, 0), Moment(0, 5), Moment(1, 5), Moment(1, 8)):
        here.edited(as_of(3, good))
    wrong = as_of(3, Moment(*moment))
    with pytest.raises(ValueError, match=r"edit of stage 3 at step 8: Moment\(.*\) is not on the way here"):
        here.edited(wrong)
    with pytest.raises(ValueError, match="is not on the way here"):
        Lineage(here.lineage.spec, (*here.lineage.edits, (8, wrong), (9, FRESH_4)))


def test_a_state_of_another_training_or_line_is_not_on_the_way():
    here = start().after(5).edited(AVERAGE_2).after(8)
    aside = [
        start(init_seed=9).after(3),
        start().after(6),
        start().after(5).edited(FRESH_4),
        start().after(4).edited(AVERAGE_2),
        here.after(9),
        here.edited(FRESH_4),
    ]
    for position in aside:
        assert not here.descends_from(position)
        with pytest.raises(ValueError, match="is not on the way to"):
            here.moment_of(position)


def entry(position: Position, what: Edit | Recipe) -> Position:
    return position.entered(what) if isinstance(what, Recipe) else position.edited(what)


MOVES = st.one_of(
    st.tuples(st.just("train"), st.integers(0, 3)),
    st.tuples(st.just("edit"), st.sampled_from([AVERAGE_2, COPY_1, FRESH_4])),
    st.tuples(st.just("enter"), st.sampled_from(RECIPES)),
    st.tuples(st.just("back"), st.integers(0, 9)),
)


@given(st.lists(MOVES, max_size=12))
def test_a_state_descends_from_the_states_on_its_way_alone(moves):
    position, ways = start(), {}
    ways[position] = {position}
    for kind, what in moves:
        if kind == "back":
            position = list(ways)[what % len(ways)]
            continue
        steps = range(1, what + 1) if kind == "train" else [0]
        for _ in steps:
            moved = position.after(position.step + 1) if kind == "train" else entry(position, what)
            ways.setdefault(moved, ways[position] | {moved})
            position = moved
    for later, way in ways.items():
        assert {older for older in ways if later.descends_from(older)} == way
        for older in way:
            assert later.lineage.first(older.moment.num_edits) == older.lineage
            later.edited(as_of(1, older.moment))
