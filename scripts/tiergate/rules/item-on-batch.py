"""What the rule must find (ruleid) and must leave alone (ok); read in every run as a canary."""

import numpy as np
import torch


def sample(probabilities, logits):
    chosen = torch.multinomial(probabilities, 1)
    # ruleid: item-on-batch
    first = chosen.item()
    # ruleid: item-on-batch
    second = int(chosen)
    best = logits.argmax(dim=-1)
    # ruleid: item-on-batch
    third = best.item()
    # ruleid: item-on-batch
    fourth = float(best)
    # ruleid: item-on-batch
    fifth = torch.multinomial(probabilities, 1).item()
    # ruleid: item-on-batch
    sixth = int(logits.argmax(dim=-1))
    # ok: item-on-batch
    rows = chosen.tolist()
    # ok: item-on-batch
    one = chosen[0].item()
    # ok: item-on-batch
    highest = logits.argmax().item()
    # ok: item-on-batch
    whole = torch.argmax(logits).item()
    place = np.argmax(logits)
    # ok: item-on-batch
    place = int(place)
    action = environment.action_space.sample()
    # ok: item-on-batch
    action = int(action)
    last = logits.argmax(-1)
    # ruleid: item-on-batch
    last = last.item()
    # ok: item-on-batch
    mean = loss.mean().item()
    # ok: item-on-batch
    count = int(rows[0][0])
    # ok: item-on-batch
    row = torch.multinomial(probabilities[0], 1).item()
    # ok: item-on-batch
    fixed = int(torch.multinomial(torch.tensor([0.5, 0.5]), 1))
    drawn = torch.multinomial(probabilities[0], 1)
    # ok: item-on-batch
    drawn = drawn.item()
    # ruleid: item-on-batch
    several = torch.multinomial(probabilities[0], 2).item()
    labels = []
    for line in logits:
        # ok: item-on-batch
        labels.append(line.argmax(dim=-1).item())
        # ruleid: item-on-batch
        labels.append(logits.argmax(dim=-1).item())
    scores, places = torch.max(logits, dim=-1)
    for place in places:
        # ok: item-on-batch
        labels.append(int(place))
    # ruleid: item-on-batch
    labels.append(int(places))
    return first, second, third, fourth, fifth, sixth
