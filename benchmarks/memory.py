"""Whether a guarded run holds its memory: `python benchmarks/memory.py`.

Trains a small net for 100,000 steps under each preset, with a NaN loss, a spike and a lost weight now and then (not
under `monitor`, which would let them ruin the run), so that records, budgets, snapshots and the risk model are in use.
Ten times in the run: the resident memory of the process as the kernel counts it, the objects that Python tracks, and
the guard's saved state as JSON. One markdown table a preset.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from attrs import frozen
from timing import show
from torch import Tensor, nn
from torch.nn import functional

import lbw_policy as lbw

PRESETS = ("monitor", "conservative", "transformer_pretraining")
_NAN, _SPIKE, _LOST = 997, 1_499, 7_001
"""Every so many steps: a loss that is NaN, a gradient a thousand times too long, a weight that is not finite."""


@frozen
class Held:
    """What is held at one moment."""

    step: int
    resident: int
    objects: int
    state: int
    records: int

    @classmethod
    def now(cls, step: int, guard: lbw.Guard) -> Held:
        """Look, after everything that is unreachable was given back."""
        state = len(json.dumps(guard.state_dict()))
        gc.collect()
        _trim()
        return cls(step, _resident(), len(gc.get_objects()), state, len(guard.interventions))


def _trim() -> None:
    """Let glibc give freed memory back, where there is glibc."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


class Training:
    """A small net on random vectors, guarded."""

    def __init__(self, preset: str) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 10))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.guard = lbw.attach(self.optimizer, preset, model=self.model)
        self.troubled = preset != "monitor"

    def step(self, number: int) -> None:
        """Train one step."""
        inputs, targets = torch.randn(32, 64), torch.randint(10, (32,))
        loss = functional.cross_entropy(self.model(inputs), targets)
        loss = self._under_trouble(number, loss) if self.troubled else loss
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.guard.observe(loss=loss)
        self.optimizer.step()

    def _under_trouble(self, number: int, loss: Tensor) -> Tensor:
        if number % _LOST == _LOST - 1:
            with torch.no_grad():
                next(self.model.parameters())[0, 0] = math.inf
        if number % _NAN == _NAN - 1:
            return loss * math.nan
        return loss * 1_000 if number % _SPIKE == _SPIKE - 1 else loss


def run(preset: str, steps: int) -> Iterator[Held]:
    """Train, and yield what is held ten times."""
    training = Training(preset)
    for number in range(steps):
        training.step(number)
        if (number + 1) % (steps // 10) == 0:
            yield Held.now(number + 1, training.guard)
    training.guard.detach()


def table(preset: str, steps: int) -> None:
    """Train under one preset and print what was held."""
    rows = [
        [f"{held.step:,}", f"{held.resident / 2**20:.1f}", f"{held.objects:,}", f"{held.state:,}", f"{held.records}"]
        for held in run(preset, steps)
    ]
    show(f"{preset}", ("steps", "resident, MB", "objects", "saved state, characters", "records kept"), rows)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--presets", nargs="+", default=PRESETS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for preset in arguments.presets:
        table(preset, arguments.steps)


if __name__ == "__main__":
    main()
