"""The JSON schemas that ship with the tool say what the tool reads."""

import copy
import json

import msgspec
import pytest
import yaml
from builders import ROOT, TWO_LEGS, TWO_TIERS, parse, problems, report
from jsonschema import Draft202012Validator

from tiergate import schema, spec, verdict
from tiergate.checkers import BUILT_IN

GATE = Draft202012Validator(schema.gate_schema())
REPORT = Draft202012Validator(verdict.json_schema())


def criterion(**changes):
    entry = {"id": "A", "uses": "command", "with": {"run": ["a"]}, **changes}
    return {"gate": "T", "criteria": [{k: v for k, v in entry.items() if v is not None}]}


def test_both_are_schemas():
    Draft202012Validator.check_schema(schema.gate_schema())
    Draft202012Validator.check_schema(verdict.json_schema())


@pytest.mark.parametrize(
    "data", [(ROOT / "gate.yaml").read_bytes(), TWO_LEGS, TWO_TIERS], ids=["gate.yaml", "2", "3"]
)
def test_a_spec_that_loads_is_valid(data):
    assert list(GATE.iter_errors(yaml.safe_load(data))) == []


WRONG = [
    criterion(extra=1),
    criterion(id="a b"),
    criterion(id=None),
    criterion(uses=None),
    criterion(uses="pytest", expect={"passed": 1}),
    criterion(uses="pytest", expect={"passed": 1}, **{"with": {"path": ["a"]}}),
    criterion(uses="imports", **{"with": {"module": "a-b"}}),
    criterion(**{"with": {"run": []}}),
    criterion(**{"with": {"run": ["a"], "more": 1}}),
    criterion(**{"with": None}),
    criterion(expect={"exit-code": "3"}),
    criterion(expect={"exit-code": -1}),
    criterion(devices=["gpu"]),
    criterion(devices=[]),
    criterion(timeout=0),
    criterion(remedy={"taks": "1"}),
    {**criterion(), "env": {"A B": "x"}},
    {**criterion(), "gates": "x"},
    {**criterion(), "timeout": 100_000},
]


@pytest.mark.parametrize("document", WRONG, ids=range(len(WRONG)))
def test_what_the_schema_refuses_the_loader_refuses(document):
    assert list(GATE.iter_errors(document))
    assert problems(json.dumps(document))


def test_the_document_that_the_wrong_ones_are_made_from_is_right():
    assert list(GATE.iter_errors(criterion())) == []
    assert problems(json.dumps(criterion())) == []


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_checker_has_its_parameters_in_the_schema(name):
    branches = schema.gate_schema()["$defs"]["CriterionEntry"]["allOf"]
    (branch,) = [b for b in branches if b["if"]["properties"]["uses"] == {"const": name}]
    reference = branch["then"]["properties"]["with"]["$ref"].removeprefix("#/$defs/")
    assert schema.gate_schema()["$defs"][reference]["additionalProperties"] is False


def test_a_checker_of_a_third_party_takes_any_parameters():
    assert list(GATE.iter_errors(criterion(uses="theirs", **{"with": {"any": 1}}))) == []


def test_the_schema_is_made_anew_each_time():
    first = schema.gate_schema()
    before = copy.deepcopy(first)
    first["$defs"].clear()
    assert schema.gate_schema() == before


def test_a_written_report_is_valid(tmp_path):
    made = spec.load(ROOT / "gate.yaml")
    for device in ("cpu", "cuda"):
        leg = report(made, device, {"ISS-003": "fail", "collection": "blocked"})
        written = verdict.write(leg, tmp_path / device).read_bytes()
        assert list(REPORT.iter_errors(json.loads(written))) == []


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "other"},
        {"device": "tpu"},
        {"complete": 1},
        {"verdicts": [{"criterion": "A"}]},
        {"spec": {"path": "x", "digest": "short"}},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_bad_report_is_not_valid(change):
    document = json.loads(verdict.encode(report(parse(TWO_LEGS))))
    assert list(REPORT.iter_errors({**document, **change}))


@pytest.mark.parametrize("field", ["schema_version", "spec", "verdicts", "complete", "planned"])
def test_a_report_that_lacks_a_field_is_not_valid(field):
    document = json.loads(verdict.encode(report(parse(TWO_LEGS))))
    del document[field]
    assert list(REPORT.iter_errors(document))
    with pytest.raises(verdict.ReportError):
        verdict.decode(msgspec.json.encode(document), "r")


def keys():
    """Yield each key of the schema, as its definition, its name and its own schema."""
    for definition, about in schema.gate_schema()["$defs"].items():
        for key, value in about.get("properties", {}).items():
            yield definition, key, value


@pytest.mark.parametrize(
    ("definition", "key", "value"), list(keys()), ids=lambda v: v if isinstance(v, str) else ""
)
def test_every_key_is_described_with_examples_that_are_right(definition, key, value):
    assert value.get("description"), f"{definition}.{key} has no description"
    assert value.get("examples"), f"{definition}.{key} has no example"
    one = Draft202012Validator({**value, "$defs": schema.gate_schema()["$defs"]})
    for example in value["examples"]:
        assert list(one.iter_errors(example)) == []
