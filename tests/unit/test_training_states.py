"""What training needs to go on: optimizers, schedulers, random numbers, configurations."""

import dataclasses
import enum
import math
import random
import subprocess
import sys
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

from cross_phase.mugrokfast import MuGrokConfig, MuonGrokfast
from cross_phase.utils import (
    CheckpointError,
    get_random_states,
    load_checkpoint,
    save_checkpoint,
    set_random_states,
)
from cross_phase.utils.state_trees import decode_tree, encode_tree

OPTIMIZERS = sorted(
    name
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type)
    and issubclass(kind, torch.optim.Optimizer)
    and kind is not torch.optim.Optimizer
)
ARGUMENTS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9, "nesterov": True},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "AdamW": {"betas": (0.8, 0.95), "amsgrad": True},
    "Adam": {"lr": torch.tensor(1e-3)},
    "LBFGS": {"max_iter": 2},
}


def matrices(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 4, bias=False), nn.Linear(4, 3, bias=False))


def sparse_model(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Embedding(6, 4, sparse=True))


def batch(name: str, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if name == "SparseAdam":
        return torch.randint(0, 6, (5,), generator=generator)
    return torch.randn(5, 6, generator=generator)


def make(name: str, seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = sparse_model(seed) if name == "SparseAdam" else matrices(seed)
    if name == "MuonGrokfast":
        return model, MuonGrokfast(model.parameters(), config=MuGrokConfig.from_phase(1))
    return model, getattr(torch.optim, name)(model.parameters(), **ARGUMENTS.get(name, {}))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: torch.Tensor) -> None:
    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = model(inputs).square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)


def assert_same(expected: Any, actual: Any) -> None:
    """Equal in value and type, tensors and arrays bit for bit, all the way down."""
    assert type(expected) is type(actual)
    if isinstance(expected, torch.Tensor):
        assert expected.dtype == actual.dtype
        assert torch.equal(expected, actual)
    elif isinstance(expected, np.ndarray):
        assert (expected.dtype, expected.shape) == (actual.dtype, actual.shape)
        assert expected.tobytes() == actual.tobytes()
    elif isinstance(expected, dict):
        assert_same(list(expected), list(actual))
        for key in expected:
            assert_same(expected[key], actual[key])
    elif isinstance(expected, (list, tuple)):
        assert len(expected) == len(actual)
        for one, other in zip(expected, actual, strict=True):
            assert_same(one, other)
    elif isinstance(expected, float):
        assert (expected == actual) or (math.isnan(expected) and math.isnan(actual))
    else:
        assert expected == actual


def test_every_optimizer_of_torch_is_covered() -> None:
    assert len(OPTIMIZERS) >= 14
    assert {"Adam", "AdamW", "LBFGS", "Muon", "SGD", "SparseAdam"} <= set(OPTIMIZERS)


@pytest.mark.parametrize("name", [*OPTIMIZERS, "MuonGrokfast"])
def test_training_goes_on_bit_for_bit_with_every_optimizer(tmp_path: Path, name: str) -> None:
    model, optimizer = make(name, 0)
    for seed in range(3):
        step(model, optimizer, batch(name, seed))
    state = optimizer.state_dict()
    path = save_checkpoint(model, tmp_path / "run", optimizer_state=state)

    resumed, resumed_optimizer = make(name, 1)
    restored = load_checkpoint(resumed, path, load_optimizer=True)["optimizer_state_dict"]
    assert_same(state, restored)
    resumed_optimizer.load_state_dict(restored)
    for seed in range(3, 6):
        step(model, optimizer, batch(name, seed))
        step(resumed, resumed_optimizer, batch(name, seed))

    assert_same(dict(model.state_dict()), dict(resumed.state_dict()))


SCHEDULERS: dict[str, Any] = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda epoch: 0.9),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [1, 3, 3]),
    "ConstantLR": lr_scheduler.ConstantLR,
    "LinearLR": lr_scheduler.LinearLR,
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 10),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2),
    "PolynomialLR": lr_scheduler.PolynomialLR,
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=20),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.1), lr_scheduler.ExponentialLR(o, 0.9)], [2]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
}


def scheduler_step(scheduler: Any, count: int) -> float:
    for value in range(count):
        scheduler.optimizer.step() if hasattr(scheduler, "optimizer") else None
        if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            scheduler.step(float(value))
        else:
            scheduler.step()
    (rate,) = scheduler.get_last_lr()
    return float(rate)


@pytest.mark.filterwarnings("ignore:Detected call of:UserWarning")
@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_every_scheduler_goes_on_where_it_was(tmp_path: Path, name: str) -> None:
    model = matrices(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = SCHEDULERS[name](optimizer)
    scheduler_step(scheduler, 3)
    path = save_checkpoint(
        model,
        tmp_path / "run",
        optimizer_state=optimizer.state_dict(),
        training_state={"scheduler": scheduler.state_dict()},
    )

    resumed_optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    resumed = SCHEDULERS[name](resumed_optimizer)
    result = load_checkpoint(model, path, load_optimizer=True)
    assert_same(scheduler.state_dict(), result["training_state"]["scheduler"])
    resumed_optimizer.load_state_dict(result["optimizer_state_dict"])
    resumed.load_state_dict(result["training_state"]["scheduler"])

    for _ in range(4):
        assert scheduler_step(resumed, 1) == scheduler_step(scheduler, 1)


def draws() -> list[float]:
    # The global generator of NumPy, which libraries use.
    return [
        random.random(),
        random.gauss(0, 1),
        np.random.standard_normal(),  # noqa: NPY002
        float(torch.rand(())),
        float(torch.randn(())),
    ]


def test_random_numbers_go_on_where_they_were(tmp_path: Path) -> None:
    model = matrices(0)
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(3)
    draws()  # leaves a second normal number in Python's and NumPy's generators
    states = get_random_states()
    path = save_checkpoint(model, tmp_path / "run", training_state={"random": states})
    expected = draws()
    random.seed(9)
    np.random.seed(9)  # noqa: NPY002
    torch.manual_seed(9)

    restored = load_checkpoint(model, path)["training_state"]["random"]
    assert_same(states, restored)
    set_random_states(restored)

    assert draws() == expected


def test_random_states_of_other_devices_are_refused() -> None:
    states = get_random_states()
    count = torch.cuda.device_count() + 1

    with pytest.raises(ValueError, match="CUDA devices"):
        set_random_states({**states, "cuda": [torch.zeros(16, dtype=torch.uint8)] * count})
    with pytest.raises(KeyError, match="numpy"):
        set_random_states({"python": states["python"]})


def test_generators_of_ones_own_come_back(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    torch_generator = torch.Generator().manual_seed(5)
    generator.standard_normal(3)
    state = {"numpy": generator.bit_generator.state, "torch": torch_generator.get_state()}
    path = save_checkpoint(matrices(0), tmp_path / "run", training_state=state)
    expected = (generator.standard_normal(), torch.rand((), generator=torch_generator))

    restored = load_checkpoint(matrices(0), path)["training_state"]
    other = np.random.default_rng(1)
    other.bit_generator.state = restored["numpy"]
    torch_generator.set_state(restored["torch"])

    assert (other.standard_normal(), torch.rand((), generator=torch_generator)) == expected


class Mode(enum.Enum):
    FAST = "fast"
    EXACT = ("exact", 3)


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Parts(enum.Flag):
    HEAD = enum.auto()
    BODY = enum.auto()


@dataclasses.dataclass(frozen=True)
class Schedule:
    steps: tuple[int, ...]
    mode: Mode


@dataclasses.dataclass
class TrainConfig:
    data: Path
    schedule: Schedule
    levels: dict[Level, list[Mode]]
    parts: Parts = Parts.HEAD | Parts.BODY
    dtype: torch.dtype = torch.bfloat16
    scale: Any = dataclasses.field(default_factory=lambda: np.float32(0.1))
    derived: int = dataclasses.field(init=False, default=0)

    def __post_init__(self) -> None:
        self.derived += 1
        BUILT.append(self)


BUILT: list[TrainConfig] = []
TYPES = (TrainConfig, Schedule, Mode, Level, Parts)


def train_config() -> TrainConfig:
    return TrainConfig(
        Path("data") / "set", Schedule((1, 2), Mode.EXACT), {Level.HIGH: [Mode.FAST], Level.LOW: []}
    )


def test_nested_configurations_come_back_as_themselves(tmp_path: Path) -> None:
    config = train_config()
    metadata = {"runs": [config.schedule], "mode": Mode.FAST}
    path = save_checkpoint(matrices(0), tmp_path / "run", config, metadata)

    built = len(BUILT)
    result = load_checkpoint(matrices(1), path, config_types=TYPES)

    assert len(BUILT) == built, "__post_init__ was run"
    assert result["config"] == config
    assert result["config"].derived == 1
    assert type(result["config"].scale) is np.float32
    assert result["metadata"] == metadata


def test_without_their_classes_configurations_come_back_as_plain_values(tmp_path: Path) -> None:
    path = save_checkpoint(matrices(0), tmp_path / "run", train_config())

    config = load_checkpoint(matrices(1), path)["config"]

    assert config == {
        "data": Path("data") / "set",
        "schedule": {"steps": (1, 2), "mode": ("exact", 3)},
        "levels": {2: ["fast"], 1: []},
        "parts": 3,
        "dtype": torch.bfloat16,
        "scale": np.float32(0.1),
        "derived": 1,
    }


def test_a_checkpoint_imports_and_runs_nothing_of_its_own_choice(tmp_path: Path) -> None:
    module = tmp_path / "sent_along.py"
    module.write_text(
        "import dataclasses, enum\n"
        "print('imported')\n"
        "@dataclasses.dataclass\n"
        "class Config:\n"
        "    x: int\n"
        "    def __post_init__(self):\n"
        "        print('run')\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from torch import nn\n"
        "from cross_phase.utils import save_checkpoint, load_checkpoint\n"
    )
    save = "from sent_along import Config; save_checkpoint(nn.ReLU(), 'run', Config(1))"
    load = "print(load_checkpoint(nn.ReLU(), 'run')['config'], 'sent_along' in sys.modules)"
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code + body],
            cwd=tmp_path,
            env={"PYTHONPATH": str(Path(__file__).parents[2] / "src")},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for body in (save, load)
    ]
    assert outputs == [["imported", "run"], ["{'x': 1} False"]]


def test_a_dataclass_that_changed_since_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = save_checkpoint(matrices(0), tmp_path / "run", Schedule((1,), Mode.FAST))
    name = f"{Schedule.__module__}:{Schedule.__qualname__}"
    newer = dataclasses.make_dataclass("Schedule", ["steps", "mode", "warmup"])
    newer.__module__, newer.__qualname__ = name.split(":")

    with pytest.raises(CheckpointError, match="steps, warmup here, and mode, steps in the check"):
        load_checkpoint(matrices(0), path, config_types=[newer])


def test_an_enum_that_lost_its_member_is_an_error(tmp_path: Path) -> None:
    path = save_checkpoint(matrices(0), tmp_path / "run", {"mode": Mode.FAST})
    newer = enum.Enum("Mode", {"SLOW": "slow"}, module=Mode.__module__, qualname=Mode.__qualname__)

    with pytest.raises(CheckpointError, match="'fast' is not a valid Mode"):
        load_checkpoint(matrices(0), path, config_types=[newer])


def test_only_dataclasses_and_enums_are_taken_as_types(tmp_path: Path) -> None:
    path = save_checkpoint(matrices(0), tmp_path / "run")

    with pytest.raises(TypeError, match="neither a dataclass nor an enum"):
        load_checkpoint(matrices(0), path, config_types=[subprocess.Popen])


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from([*Mode, *Level, torch.float16, torch.device("cpu"), Path("a/b")]),
    st.builds(np.float64, st.floats()),
    st.builds(np.int8, st.integers(-128, 127)),
    st.builds(np.arange, st.integers(0, 4)),
    st.builds(torch.arange, st.integers(0, 4)),
)
keys = st.one_of(st.text(max_size=3), st.integers(), st.none(), st.sampled_from(list(Level)))
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys, inner, max_size=3),
        st.dictionaries(keys, inner, max_size=3).map(OrderedDict),
        st.dictionaries(keys, st.integers(), max_size=3).map(Counter),
        st.lists(st.integers(0, 9), max_size=3).map(torch.Size),
        st.builds(Schedule, inner, inner),
    ),
    max_leaves=12,
)


def plain(value: Any) -> Any:
    """Dataclasses as dicts, for a comparison that sees tensors inside."""
    if isinstance(value, Schedule):
        return {"steps": plain(value.steps), "mode": plain(value.mode)}
    if isinstance(value, dict):
        return type(value)({key: plain(item) for key, item in value.items()})
    if type(value) in (list, tuple):
        return type(value)(plain(item) for item in value)
    return value


@settings(max_examples=150, deadline=None)
@given(tree=trees)
def test_nested_state_of_any_kind_comes_back(tree: Any) -> None:
    tensors: dict[str, torch.Tensor] = {}
    encoded = encode_tree(tree, "state", tensors)

    assert_same(plain(tree), plain(decode_tree(encoded, tensors, TYPES)))
