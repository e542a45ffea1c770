"""Spec → cells and waves."""

from builders import TWO_LEGS, TWO_TIERS, gate, parse

from tiergate import plan


def _needs(cells):
    return {cell.name: cell.needs for cell in cells}


def test_a_cell_is_a_criterion_on_a_device_in_the_order_of_the_file():
    spec = parse(TWO_LEGS)
    assert [cell.name for cell in plan.cells(spec, "cpu")] == ["A@cpu", "B@cpu"]
    assert [cell.name for cell in plan.cells(spec, "cuda")] == ["A@cuda", "C@cuda"]
    assert [cell.name for cell in plan.all_cells(spec)] == ["A@cpu", "B@cpu", "A@cuda", "C@cuda"]


def test_the_legs_can_be_chosen():
    spec = parse(TWO_LEGS)
    assert [cell.name for cell in plan.all_cells(spec, ["cuda"])] == ["A@cuda", "C@cuda"]
    assert plan.all_cells(spec, []) == []


def test_a_cell_needs_cells_of_its_own_leg_only():
    text = gate(
        "  - {id: A, uses: command, with: {run: [a]}}\n"
        "  - {id: B, uses: command, with: {run: [b]}, needs: [A], devices: [cpu, cuda]}\n",
        head="gate: T\ndevices: [cpu, cuda]\n",
    )
    assert _needs(plan.all_cells(parse(text))) == {
        "A@cpu": (),
        "B@cpu": ("A@cpu",),
        "B@cuda": (),
    }


def test_a_cell_of_a_higher_tier_needs_every_cell_of_the_lower_ones():
    assert _needs(plan.cells(parse(TWO_TIERS), "cpu")) == {"A@cpu": (), "B@cpu": ("A@cpu",)}


def test_a_need_in_a_lower_tier_is_listed_once():
    text = TWO_TIERS.replace(b"with: {run: [b]}", b"with: {run: [b]}, needs: [A]")
    assert _needs(plan.cells(parse(text), "cpu"))["B@cpu"] == ("A@cpu",)


def test_waves_say_what_may_run_together():
    spec = parse(TWO_LEGS)
    assert plan.cell_waves(plan.cells(spec, "cpu")) == [["A@cpu"], ["B@cpu"]]
    assert plan.cell_waves(plan.cells(spec, "cuda")) == [["A@cuda", "C@cuda"]]
