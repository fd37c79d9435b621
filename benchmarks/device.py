"""What each tier adds to a training step on a GPU: `python benchmarks/device.py`.

A GPT of more than 100 million parameters under bf16 autocast, fused AdamW, in three arms that take turns, block by
block: unguarded, guarded in the host tier, guarded in the device tier. Unguarded and device tier run under
`torch.cuda.set_sync_debug_mode("error")`, where whatever makes the host wait raises. Medians with quartiles.
`--cpu` runs a small model on the CPU, where nothing is asynchronous: it shows what the tier's own operations cost.
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from attrs import define, frozen
from timing import MS, Arm, Times, in_turns, show
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

import lbw_policy as lbw
from lbw_policy.lab.gpt import Gpt, GptShape

_READY = 130
"""Steps after which all windows of the presets are warm."""


@frozen
class Size:
    """A model and its batches."""

    shape: GptShape
    batch: int
    device: str


LARGE = Size(GptShape(1024, 10, 16, 512, 16_384), 16, "cuda")
SMALL = Size(GptShape(256, 4, 4, 128, 8192), 4, "cpu")


@define(eq=False)
class Training:
    """One arm: its own copy of the model, its optimizer, its guard."""

    name: str
    size: Size
    model: Gpt
    optimizer: torch.optim.Optimizer
    guard: lbw.Guard | None
    batches: list[tuple[torch.Tensor, torch.Tensor]]
    done: int = 0

    @classmethod
    def of(cls, name: str, size: Size, policy: str, tier: str | None) -> Training:
        """Build an arm, and train it until all windows are warm."""
        torch.manual_seed(0)
        model = Gpt(size.shape).to(size.device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        guard = None if tier is None else lbw.attach(optimizer, policy, model=model, tier=tier)
        shape = (size.batch, size.shape.context)
        draw = [torch.randint(size.shape.vocabulary, shape, device=size.device) for _ in range(16)]
        found = cls(name, size, model, optimizer, guard, list(zip(draw, draw[1:] + draw[:1], strict=True)))
        for _ in range(_READY):
            found.step()
        return found

    def step(self) -> None:
        """Train one step."""
        inputs, targets = self.batches[self.done % len(self.batches)]
        self.done += 1
        self.optimizer.zero_grad()
        with torch.autocast(self.size.device, torch.bfloat16, enabled=self.size.device == "cuda"):
            loss = functional.cross_entropy(self.model(inputs).flatten(0, 1), targets.flatten())
        loss.backward()
        if self.guard is not None:
            self.guard.observe(loss=loss.detach())
        self.optimizer.step()

    def steps(self, count: int) -> None:
        """Train some steps, in which the host must not wait but in the host tier, and wait for the last."""
        waits = self.guard is not None and self.guard.tier == "host"
        with _no_waiting(self.size.device == "cuda" and not waits):
            for _ in range(count):
                self.step()
        if self.size.device == "cuda":
            torch.cuda.synchronize()


@contextmanager
def _no_waiting(forbidden: bool) -> Iterator[None]:
    if forbidden:
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if forbidden:
            torch.cuda.set_sync_debug_mode("default")


class Counting(TorchDispatchMode):
    """Counts operations, each of which is one kernel or a few."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401 - torch's own
        """Count and run."""
        self.counts[func._schema.name] += 1
        return func(*args, **(kwargs or {}))


def operations(training: Training) -> int:
    """Return how many operations a guard launches before an update."""
    assert training.guard is not None
    with Counting() as mode:
        training.guard.before_update()
    training.guard.after_update()
    return sum(mode.counts.values())


def report(times: dict[str, Times], trainings: list[Training]) -> None:
    """Print the table."""
    bare, rows = times["unguarded"], []
    for training in trainings:
        found = times[training.name]
        ratio = f"{found.median / bare.median:.4f}"
        counted = str(operations(training)) if training.guard else "-"
        rows.append([training.name, found.shown(MS), found.cpu_shown(MS), ratio, counted])
    size = trainings[0].size
    count = sum(parameter.numel() for parameter in trainings[0].model.parameters())
    where = torch.cuda.get_device_name() if size.device == "cuda" else f"{torch.get_num_threads()} threads of a CPU"
    show(
        f"GPT of {count / 1e6:.0f} million parameters, {size.batch} x {size.shape.context} tokens, {where}",
        ["arm", "step, ms", "CPU time, ms", "to unguarded", "operations before the update"],
        rows,
    )


def main(arguments: list[str] | None = None) -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="conservative", help="a preset or a file (default: conservative)")
    parser.add_argument("--blocks", type=int, default=15, help="blocks of each arm (default: 15)")
    parser.add_argument("--steps", type=int, default=20, help="steps in a block (default: 20)")
    parser.add_argument("--cpu", action="store_true", help="a small model on the CPU")
    given = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    if not given.cpu and not torch.cuda.is_available():
        print("no CUDA device here: nothing was timed (`--cpu` times a small model, where nothing is asynchronous)")
        return
    size = SMALL if given.cpu else LARGE
    tiers: dict[str, str | None] = {"unguarded": None, "host tier": "host", "device tier": "device"}
    trainings = [Training.of(name, size, given.policy, tier) for name, tier in tiers.items()]
    arms = [Arm(one.name, _block(one, given.steps), given.steps) for one in trainings]
    report(in_turns(arms, given.blocks), trainings)


def _block(training: Training, steps: int) -> Callable[[], None]:
    return lambda: training.steps(steps)


if __name__ == "__main__":
    main()
