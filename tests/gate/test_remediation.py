"""Failed criteria → the order in which to mend them."""

from builders import TWO_LEGS, all_legs, gate, parse, report

from tiergate.remediation import failed_cells, order
from tiergate.spec import Spec


def names(spec: Spec, *failed: str):
    """Return the waves as names, where the named criteria failed on the CPU."""
    return [[task.name for task in wave] for wave in order(spec, {c: ["cpu"] for c in failed})]


def chain(*lines: str, head: str = "gate: T\n") -> Spec:
    """Return a spec from ``ID task need…`` lines."""
    rows = []
    for line in lines:
        name, task, *needs = line.split()
        remedy = "" if task == "-" else f", remedy: {{task: '{task}'}}"
        rows.append(
            f"  - {{id: {name}, uses: command, with: {{run: [a]}}, needs: [{', '.join(needs)}]"
            f"{remedy}}}\n"
        )
    return parse(gate("".join(rows), head))


def test_failed_cells_are_those_that_did_not_pass_by_criterion():
    spec = parse(TWO_LEGS)
    statuses = {"A@cpu": "fail", "B@cpu": "blocked", "A@cuda": "error"}
    assert failed_cells(all_legs(spec, statuses)) == {"A": ["cpu", "cuda"], "B": ["cpu"]}
    assert failed_cells(all_legs(spec)) == {}


def test_a_report_given_twice_asks_for_no_command_twice():
    spec = parse(TWO_LEGS)
    leg = report(spec, "cpu", {"A": "fail"})
    assert failed_cells([leg, leg]) == {"A": ["cpu"]}


def test_each_task_carries_its_remedy_and_how_to_verify_it():
    first, second, last = order(parse(TWO_LEGS), {"A": ["cpu", "cuda"], "B": ["cpu"]})
    (a,), (b,), (closing,) = first, second, last
    assert (a.name, a.remedy.hint, a.criteria) == ("1", "look at a", ["A"])
    assert a.verify == [
        "tiergate run --only A --device cpu",
        "tiergate run --only A --device cuda",
    ]
    assert (b.name, b.verify) == ("2", ["tiergate run --only B --device cpu"])
    assert (closing.name, closing.criteria, closing.verify) == ("9", ["TIER 0"], ["tiergate run"])


def test_independent_tasks_are_done_together_and_what_needs_them_waits():
    spec = chain("A 1", "B 2", "C 3 A B", head="gate: T\nremedy: {task: '4'}\n")
    assert names(spec, "A", "B", "C") == [["1", "2"], ["3"], ["4"]]


def test_what_is_needed_and_passed_is_not_waited_for():
    assert names(chain("A 1", "B 2 A"), "B") == [["2"]]


def test_a_criterion_without_a_task_is_a_task_of_its_own():
    assert names(chain("A -"), "A") == [["A"]]


def test_criteria_with_one_task_are_mended_together():
    ((task,),) = order(chain("A 1", "B 1 A"), {"A": ["cpu"], "B": ["cpu"]})
    assert task.criteria == ["A", "B"]
    assert len(task.verify) == 2


def test_nothing_failed_is_nothing_to_mend():
    assert order(parse(TWO_LEGS), {}) == []


def test_tasks_that_wait_for_each_other_are_done_together():
    spec = chain("A 1", "B 2", "C 1 B", "D 2 A", "E 3 C")
    assert names(spec, "A", "B", "C", "D", "E") == [["1", "2"], ["3"]]


def test_a_higher_tier_waits_for_the_lower_one():
    spec = parse(
        """\
tiers:
  - gate: TIER 0
    remedy: {task: close-0}
    criteria: [{id: A, uses: command, with: {run: [a]}}]
  - gate: TIER 1
    remedy: {task: close-1}
    criteria: [{id: B, uses: command, with: {run: [b]}}]
"""
    )
    assert names(spec, "A", "B") == [["A"], ["close-0"], ["B"], ["close-1"]]
    assert names(spec, "B") == [["B"], ["close-1"]]
