"""Order in a graph of needs."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from tiergate.waves import find_cycle, waves


def test_waves_put_each_node_right_behind_what_it_needs():
    needs = {"d": ["b", "c"], "a": [], "b": ["a"], "c": ["a"], "e": []}
    assert waves(needs) == [["a", "e"], ["b", "c"], ["d"]]


def test_a_need_that_is_no_node_is_no_obstacle():
    assert waves({"a": ["elsewhere"]}) == [["a"]]


def test_a_need_given_twice_counts_once():
    assert waves({"a": [], "b": ["a", "a"]}) == [["a"], ["b"]]


def test_nothing_has_no_waves():
    assert waves({}) == []


def test_a_cycle_reads_in_the_direction_of_the_needs():
    assert find_cycle({"a": ["b"], "b": ["c"], "c": ["b"], "d": []}) in (
        ["b", "c", "b"],
        ["c", "b", "c"],
    )
    needs = {"a": ["b"], "b": ["c"], "c": ["a"]}
    cycle = find_cycle(needs)
    assert len(cycle) == 4
    assert all(after in needs[before] for before, after in itertools.pairwise(cycle))


def test_a_node_that_needs_itself_is_a_cycle():
    assert find_cycle({"a": ["a"]}) == ["a", "a"]


_NODES = st.sampled_from("abcdefg")


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(_NODES, st.lists(_NODES, max_size=4), max_size=7))
def test_a_graph_has_either_a_cycle_or_waves_that_hold_every_node_once(needs):
    cycle = find_cycle(needs)
    if cycle:
        assert cycle[0] == cycle[-1]
        assert all(b in needs[a] for a, b in itertools.pairwise(cycle))
        return
    result = waves(needs)
    assert sorted(node for wave in result for node in wave) == sorted(needs)
    seen: set[str] = set()
    for wave in result:
        assert all(need in seen for node in wave for need in needs[node] if need in needs)
        seen.update(wave)
