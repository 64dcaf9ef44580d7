"""A cache keeps what was used last, within its bounds."""

from sim.core.memo import Memo


def test_what_was_asked_for_last_is_kept():
    memo = Memo(most=2)
    assert [memo.get(key, lambda key=key: 10 * key) for key in (1, 2, 1, 3)] == [10, 20, 10, 30]
    assert [memo.get(key, lambda: 0) for key in (1, 3, 2)] == [10, 30, 0]


def test_a_cache_is_bounded_in_bytes():
    memo = Memo(most=100, size=lambda key, found: key + found, most_bytes=50)
    for key in (10, 11, 5):
        assert memo.get(key, lambda key=key: key) == key
    assert memo.num_bytes == 2 * (11 + 5), "the first had to go"
    assert memo.get(40, lambda: 40) == 40
    assert memo.num_bytes == 80, "one value is kept, however large"
    assert memo.get(5, lambda: 6) == 6
