"""The whole training objective on tiny real models."""

import copy
import math

import pytest
import torch
from tests.unit.thought_models import (
    HIDDEN_SIZE,
    hugging_face_model,
    random_ids,
    sampling_distribution,
    tiny_language_model,
)

from phase3_quietstar.architecture import QuietSTaRModel
from phase3_quietstar.decoding import Sequences
from phase3_quietstar.objective import QuietSTaRObjective
from phase3_quietstar.thought_generator import sample_thoughts
from phase3_quietstar.training import evaluating

FAMILIES = ["gpt2", "llama", "mistral, sliding window", "qwen2, some layers sliding"]
LENGTH = 3
FUTURE = 3


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def build(base_model, **options) -> QuietSTaRModel:
    """A model that has learned to mix."""
    torch.manual_seed(0)
    options = {"num_thoughts": 3, "max_thought_length": LENGTH, "top_p": 0.9} | options
    model = QuietSTaRModel(base_model, base_model.config.hidden_size, **options).double()
    with torch.no_grad():
        model.mixing_head.weight[-1].weight.normal_()
        model.thought_tokens.start.normal_()
        model.thought_tokens.end.normal_()
    return model.to(base_model.device).eval()


def loop_reference(model, input_ids, objective, frozen=None):
    """The objective of unpadded sequences, one forward per thought; see arXiv 2403.09629."""
    base_model, tokens = model.base_model, model.thought_tokens
    embed, settings = base_model.get_input_embeddings(), model.thought_generator.settings
    rows, width = input_ids.shape
    positions = torch.arange(width - 1, device=input_ids.device).expand(rows, -1)
    with torch.no_grad():
        thoughts = sample_thoughts(
            Sequences(base_model, input_ids),
            positions,
            num_thoughts=model.thought_generator.num_thoughts,
            length=LENGTH,
            settings=settings,
            thought_tokens=tokens,
            generator=seeded(),
        ).token_ids
    base_terms, talk_terms, policy_terms, kl_terms = [], [], [], []
    for row in range(rows):
        plain = base_model(input_ids[row : row + 1], output_hidden_states=True, use_cache=False)
        states, logits = plain.hidden_states[-1][0], plain.logits[0]
        base_terms += [-logits[t].log_softmax(-1)[input_ids[row, t + 1]] for t in range(width - 1)]
        if frozen is not None:
            with torch.no_grad():
                other = frozen(input_ids[row : row + 1]).logits[0]
            for t in range(width):
                p, q = logits[t].softmax(-1), other[t].softmax(-1)
                kl_terms.append((p * (p / q).log()).sum())
        for t in range(width - 1):
            rewards, log_probs = [], []
            for ids in thoughts[row, t]:
                following = input_ids[row, t + 1 : t + FUTURE]
                inputs = torch.cat(
                    [
                        embed(input_ids[row, : t + 1]),
                        tokens.start[None],
                        embed(ids),
                        tokens.end[None],
                        embed(following),
                    ]
                )
                full = base_model(
                    inputs_embeds=inputs[None], output_hidden_states=True, use_cache=False
                )
                log_prob = 0.0
                for step, token in enumerate(ids):
                    probs = full.logits[0, t + 1 + step] / settings.temperature
                    kept = sampling_distribution(probs.detach(), 1.0, settings.top_p) > 0
                    kept[token] = True
                    probs = probs.masked_fill(~kept, -math.inf).softmax(-1)
                    log_prob = log_prob + probs[token].log()
                log_probs.append(log_prob)
                reward = 0.0
                for f in range(min(FUTURE, width - 1 - t)):
                    talk = full.hidden_states[-1][0, t + 2 + LENGTH + f]
                    base = states[t + f]
                    weight = model.mixing_head.weight(torch.cat([base, talk]))
                    mixed = base_model.lm_head((1 - weight) * base + weight * talk)
                    likelihood = mixed.log_softmax(-1)[input_ids[row, t + 1 + f]]
                    talk_terms.append(-likelihood)
                    reward = reward + likelihood.item()
                rewards.append(reward)
            for k, log_prob in enumerate(log_probs):
                others = [reward for j, reward in enumerate(rewards) if j != k]
                policy_terms.append(-(rewards[k] - sum(others) / len(others)) * log_prob)
    base, talk, policy = (
        sum(terms) / len(terms) for terms in (base_terms, talk_terms, policy_terms)
    )
    kl = sum(kl_terms) / len(kl_terms) if kl_terms else torch.zeros_like(base)
    total = (
        objective.base_weight * base
        + objective.thought_weight * talk
        + objective.policy_weight * policy
        + objective.kl_coefficient * kl
    )
    return total, base, talk, policy, kl


@pytest.mark.parametrize("family", FAMILIES)
def test_every_term_and_every_gradient_is_that_of_a_plain_loop(family, device):
    base_model = hugging_face_model(family, device)
    frozen = hugging_face_model(family, device, initializer_range=0.3)
    model = build(base_model)
    input_ids = random_ids(device, 2, 6)
    objective = QuietSTaRObjective(
        FUTURE, base_weight=0.3, thought_weight=0.7, policy_weight=1.1, kl_coefficient=0.2
    )
    got = model.training_loss(input_ids, objective, frozen_model=frozen, generator=seeded())
    expected = loop_reference(model, input_ids, objective, frozen)
    values = (got.loss, got.base, got.thought, got.policy, got.kl)
    for value, reference in zip(values, expected, strict=True):
        assert value.item() == pytest.approx(reference.item(), rel=1e-5, abs=1e-6)
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(got.loss, parameters, allow_unused=True)
    references = torch.autograd.grad(expected[0], parameters, allow_unused=True)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    moved = set()
    for name, gradient, reference in zip(names, gradients, references, strict=True):
        if reference is None:
            assert gradient is None or not gradient.any(), name
        else:
            torch.testing.assert_close(gradient, reference, rtol=1e-3, atol=1e-5, msg=name)
            moved.add(name.split(".")[0])
    assert moved == {"base_model", "thought_tokens", "mixing_head"}


def test_gain_is_measured_against_the_same_tokens_without_thoughts(device):
    model = build(hugging_face_model("gpt2", device))
    with torch.no_grad():
        model.mixing_head.weight[-1].weight.zero_()
    loss = model.training_loss(random_ids(device, 2, 6), generator=seeded())
    # A thought of weight 0 changes nothing.
    assert loss.gain.item() == pytest.approx(0, abs=1e-12)
    assert loss.mixing_weight.item() == 0
    assert loss.kl.item() == 0


@pytest.mark.parametrize("side", ["start", "end"])
def test_padding_changes_no_term(side, device):
    model = build(hugging_face_model("llama", device))
    short, long = random_ids(device, 1, 5), random_ids(device, 1, 8, seed=2)
    padding = torch.zeros(1, 3, dtype=torch.long, device=device)
    parts = [padding, short] if side == "start" else [short, padding]
    input_ids = torch.cat([torch.cat(parts, dim=1), long])
    mask = torch.ones_like(input_ids)
    mask[0, slice(0, 3) if side == "start" else slice(5, 8)] = 0
    frozen = hugging_face_model("llama", device, initializer_range=0.3)
    objective = QuietSTaRObjective(future_tokens=1, kl_coefficient=1.0)
    options = {"frozen_model": frozen}
    both = model.training_loss(
        input_ids, objective, attention_mask=mask, generator=seeded(), **options
    )
    alone = [
        model.training_loss(ids, objective, generator=seeded(), **options) for ids in (short, long)
    ]
    for term, weights in {
        "base": (4, 7), "thought": (4, 7), "policy": (4, 7), "gain": (4, 7), "kl": (5, 8)
    }.items():  # fmt: skip
        expected = sum(
            w * getattr(loss, term) for w, loss in zip(weights, alone, strict=True)
        ) / sum(weights)
        torch.testing.assert_close(getattr(both, term), expected, rtol=1e-4, atol=1e-5)


def test_chosen_positions_are_the_only_ones_thought_about(device):
    model = build(hugging_face_model("gpt2", device))
    input_ids = random_ids(device, 2, 7)
    calls: list[int] = []
    model.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: (
            calls.append(kwargs["inputs_embeds"].shape[1])
            if kwargs.get("inputs_embeds") is not None
            else None
        ),
        with_kwargs=True,
    )
    objective = QuietSTaRObjective(future_tokens=2)
    model.training_loss(input_ids, objective, positions=torch.tensor([1, 4]), generator=seeded())
    # Two positions, three thoughts: start, LENGTH tokens, end, one future token.
    assert calls[-1] == 7 + 2 * 3 * (LENGTH + 3)


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_gradient_checkpointing_changes_nothing(family, device):
    model = build(hugging_face_model(family, device))
    for dropout in (m for m in model.modules() if isinstance(m, torch.nn.Dropout)):
        dropout.p = 0.0
    input_ids = random_ids(device, 2, 6)
    parameters = list(model.base_model.parameters())
    plain = model.training_loss(input_ids, generator=seeded())
    expected = torch.autograd.grad(plain.loss, parameters)
    model.base_model.gradient_checkpointing_enable()
    model.train()
    checkpointed = model.training_loss(input_ids, generator=seeded())
    got = torch.autograd.grad(checkpointed.loss, parameters)
    torch.testing.assert_close(checkpointed.loss, plain.loss)
    torch.testing.assert_close(got, expected)
    assert all(module.training for module in model.modules())


def test_eager_attention_and_autocast_give_the_same_loss(device):
    sdpa = build(hugging_face_model("llama", device).float())
    input_ids = random_ids(device, 2, 6)
    expected = sdpa.float().training_loss(input_ids, generator=seeded())
    eager = build(hugging_face_model("llama", device, attn_implementation="eager").float())
    got = eager.float().training_loss(input_ids, generator=seeded())
    torch.testing.assert_close(got.loss, expected.loss, rtol=1e-4, atol=1e-4)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        mixed = sdpa.training_loss(
            input_ids, QuietSTaRObjective(policy_weight=0.0), generator=seeded()
        )
    mixed.loss.backward()
    torch.testing.assert_close(mixed.base, expected.base, rtol=0.05, atol=0.05)


def test_a_few_steps_lower_the_losses(device):
    """The objective, with every term, goes down on one batch."""
    model = build(hugging_face_model("gpt2", device, initializer_range=0.1))
    frozen = copy.deepcopy(model.base_model)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    input_ids = random_ids(device, 4, 8)
    history = []
    for _ in range(12):
        loss = model.training_loss(
            input_ids,
            QuietSTaRObjective(kl_coefficient=0.01),
            frozen_model=frozen,
            generator=seeded(),
        )
        optimizer.zero_grad()
        loss.loss.backward()
        optimizer.step()
        history.append((loss.base + loss.thought).item())
    assert history[-1] < 0.8 * history[0]
    assert loss.kl.item() > 0


def test_thoughts_are_sampled_without_dropout_and_learned_from_with_it(device):
    model = build(hugging_face_model("gpt2", device)).train()
    modes: set[tuple[bool, bool]] = set()
    model.base_model.transformer.h[0].register_forward_pre_hook(
        lambda module, _: modes.add((torch.is_grad_enabled(), module.training))
    )
    model.training_loss(random_ids(device, 2, 6), generator=seeded())
    assert modes == {(False, False), (True, True)}


def test_sampling_leaves_each_module_in_its_mode(device):
    model = hugging_face_model("gpt2", device).train()
    frozen_part = model.transformer.ln_f.eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert not frozen_part.training
    assert model.transformer.h[0].training


def test_what_the_objective_cannot_do_is_refused(device):
    input_ids = random_ids(device, 2, 6)
    plain = QuietSTaRModel(tiny_language_model(device), HIDDEN_SIZE)
    with pytest.raises(ValueError, match="the objective needs learned thought tokens"):
        plain.training_loss(input_ids)
    model = build(hugging_face_model("gpt2", device))
    with pytest.raises(ValueError, match="kl_coefficient needs frozen_model="):
        model.training_loss(input_ids, QuietSTaRObjective(kl_coefficient=0.1))
    for positions in ([5], [-1], [[0]], []):
        with pytest.raises(ValueError, match=r"positions must be .* in \[0, 5\)"):
            model.training_loss(
                input_ids, positions=torch.tensor(positions, dtype=torch.long, device=device)
            )
    with pytest.raises(ValueError, match="at least 2 tokens"):
        model.training_loss(input_ids[:, :1])
    single = build(hugging_face_model("gpt2", device), num_thoughts=1)
    with pytest.raises(ValueError, match="num_thoughts must be at least 2"):
        single.training_loss(input_ids)
    assert single.training_loss(input_ids, QuietSTaRObjective(policy_weight=0.0)).loss.isfinite()
    with pytest.raises(ValueError, match="need 68 positions, the base model has 64"):
        model.training_loss(random_ids(device, 1, 60))
