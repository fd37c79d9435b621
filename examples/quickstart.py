"""Guard a plain training loop: a net that guesses the next letter, and one bad batch on the way."""

import argparse
from pathlib import Path

import torch
from torch import nn

import lbw_policy as lbw

torch.manual_seed(0)
text = torch.tensor(list(Path(argparse.__file__).read_bytes()))  # real text: a module of Python's own
model = nn.Sequential(nn.Embedding(256, 16), nn.Flatten(), nn.Linear(16 * 16, 128), nn.ReLU(), nn.Linear(128, 256))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
guard = lbw.attach(optimizer, lbw.load("conservative"), model=model)

for step in range(400):
    start = torch.randint(len(text) - 17, (64,))
    window = text[start[:, None] + torch.arange(17)]
    loss = nn.functional.cross_entropy(model(window[:, :16]), window[:, 16])
    if step == 250:
        loss = loss * float("nan")  # without the guard, this batch ends the run
    optimizer.zero_grad()
    loss.backward()
    guard.observe(loss=loss)
    optimizer.step()
    if step % 50 == 49:
        print(f"step {step + 1}: loss {loss.item():.2f}, level {guard.level}")

print(guard.summary())
