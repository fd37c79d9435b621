"""A guard lives as long as its optimizer, and no longer."""

import gc
import weakref

import torch
from torch import nn

import lbw_policy as lbw


def test_what_is_guarded_and_forgotten_is_freed() -> None:
    """A sweep that makes one guarded training after another keeps none of them, detached or not."""

    def train() -> list[weakref.ref[object]]:
        model = nn.Linear(4, 4)
        optimizer = torch.optim.AdamW(model.parameters())
        guard = lbw.attach(optimizer, "conservative", model=model)
        guard.observe(loss=model(torch.ones(4)).sum())
        model(torch.ones(4)).sum().backward()
        optimizer.step()
        return [weakref.ref(one) for one in (model, optimizer, guard)]

    left = train()
    gc.collect()
    assert [one() for one in left] == [None, None, None]
