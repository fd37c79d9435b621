"""What a guard adds to the time of a training step: `python benchmarks/overhead.py`.

Every arm trains its own copy of the same model on the same batches; the arms take turns, block by block.
Medians over blocks with quartiles, wall and CPU time. Two readings of the same cost: the whole step against
the unguarded step of the same block, in which the noise of forward and backward pass is; and the part of the
step between backward and next forward pass, where guard, clip and optimizer work and little noise is, as a
share of the unguarded step. The second does not see forward hooks, which few ticks have. A snapshot is too rare
for a median to show it: it is timed by itself and added, spread over the steps between two. One run prints
markdown tables. Peers come with `pip install -c constraints.txt -e '.[bench]'`; one that is missing is named.
"""

from __future__ import annotations

import argparse
import copy
import functools
import gc
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from attrs import define, field, frozen
from timing import MS, Arm, Times, in_turns, missing, show
from torch import Tensor, nn
from torch.nn import functional

import lbw_policy as lbw
from lbw_policy.lab.gpt import Gpt, GptShape
from lbw_policy.machine.schedule import SnapshotSchedule

# The models


@frozen
class Bench:
    """A model and its batches: `draw` gives inputs and targets, `loss` compares outputs with targets."""

    name: str
    build: Callable[[], nn.Module]
    draw: Callable[[], tuple[Tensor, Tensor]]
    work: str


def _scores(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def mlp(width: int, depth: int, batch: int) -> Bench:
    """A plain net of equal layers on random vectors."""

    def build() -> nn.Module:
        layers = [part for _ in range(depth) for part in (nn.Linear(width, width), nn.GELU())]
        return nn.Sequential(*layers, nn.Linear(width, 100))

    return Bench("MLP", build, lambda: (torch.randn(batch, width), torch.randint(100, (batch,))), f"{batch} vectors")


def gpt(width: int, layers: int, batch: int, context: int) -> Bench:
    """A decoder on random tokens."""
    shape = GptShape(width, layers, max(2, width // 64), context, 8192)

    def draw() -> tuple[Tensor, Tensor]:
        return torch.randint(8192, (batch, context)), torch.randint(8192, (batch, context))

    return Bench("GPT", lambda: Gpt(shape), draw, f"{batch} x {context} tokens")


class Residual(nn.Module):
    """Two convolutions with batch norm, added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Return images of the same shape."""
        found: Tensor = images + self.net(images)
        return found


def cnn(width: int, depth: int, batch: int, size: int) -> Bench:
    """A residual net on random images."""

    def build() -> nn.Module:
        blocks = [Residual(width) for _ in range(depth)]
        stem = nn.Conv2d(3, width, 3, padding=1)
        return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 100))

    def draw() -> tuple[Tensor, Tensor]:
        return torch.randn(batch, 3, size, size), torch.randint(100, (batch,))

    return Bench("CNN", build, draw, f"{batch} images of {size} x {size}")


SIZES: dict[str, tuple[Bench, ...]] = {
    "5M": (mlp(1024, 4, 512), gpt(256, 4, 4, 128), cnn(192, 7, 8, 16)),
    "25M": (mlp(2048, 6, 512), gpt(512, 6, 4, 128), cnn(384, 9, 4, 16)),
    "100M": (mlp(4096, 6, 256), gpt(768, 12, 2, 128), cnn(768, 9, 4, 8)),
}

# The arms

Step = Callable[[Tensor], None]
"""What happens between the backward pass and the next forward pass; it is given the loss."""


def _adamw(model: nn.Module, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-5, fused=fused)


def unguarded(model: nn.Module, fused: bool) -> Step:
    """The loop as it is."""
    optimizer = _adamw(model, fused)
    return lambda _: optimizer.step() and None


def clipped(model: nn.Module, fused: bool) -> Step:
    """The loop most people have."""
    optimizer = _adamw(model, fused)

    def step(_: Tensor) -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def guarded(policy: str) -> Callable[[nn.Module, bool], Step]:
    """The loop with a guard."""

    def arm(model: nn.Module, fused: bool) -> Step:
        optimizer = _adamw(model, fused)
        guard = lbw.attach(optimizer, policy, model=model)

        def step(loss: Tensor) -> None:
            guard.observe(loss=loss)
            optimizer.step()

        return step

    return arm


def guarded_and_clipped(policy: str) -> Callable[[nn.Module, bool], Step]:
    """The loop most people have, with a guard that clips for it."""

    def arm(model: nn.Module, fused: bool) -> Step:
        optimizer = _adamw(model, fused)
        guard = lbw.attach(optimizer, policy, model=model)

        def step(loss: Tensor) -> None:
            guard.clip_grad_norm_(1.0)
            guard.observe(loss=loss)
            optimizer.step()

        return step

    return arm


def zclip(model: nn.Module, fused: bool) -> Step:
    """ZClip with its defaults."""
    from zclip import ZClip

    optimizer, clip = _adamw(model, fused), ZClip()

    def step(_: Tensor) -> None:
        clip.step(model)
        optimizer.step()

    return step


def stability_guard(action: str) -> Callable[[nn.Module, bool], Step]:
    """StabilityGuard, which skips or rolls back one step."""

    def arm(model: nn.Module, fused: bool) -> Step:
        from stabilityguard import GuardedOptimizer

        folder = tempfile.mkdtemp()
        optimizer = GuardedOptimizer(
            _adamw(model, fused), model, nan_action=action, verbose=False, log_dir=folder, log_every=10**9
        )
        return lambda _: optimizer.step() and None

    return arm


def other_optimizer(name: str) -> Callable[[nn.Module, bool], Step]:
    """An optimizer of pytorch_optimizer with its defaults."""

    def arm(model: nn.Module, _: bool) -> Step:
        import pytorch_optimizer

        optimizer = getattr(pytorch_optimizer, name)(model.parameters(), lr=1e-5)
        return lambda _: optimizer.step() and None

    return arm


HEAD = "lbw 1\npolicy {name} {{ }}\nsignal loss = telemetry.loss\nsignal grad = telemetry.grad_norm\n"
LIMITS = "limits { skip at most 8 in a row, at most 40 per 1_000 steps  intervene at most 200 per 1_000 steps }\n"
GRADIENTS = (
    HEAD.format(name="gradients")
    + "reflex broken { when not finite(loss) or not finite(grad) do skip }\n"
    + "reflex spike { when grad > 8 * median(grad, 128 steps) do skip }\n"
    + LIMITS
)
UPDATES = (
    HEAD.format(name="updates")
    + "signal update = telemetry.update_ratio\nsignal weights = telemetry.nonfinite_params\n"
    + "reflex broken { when not finite(loss) or not finite(grad) or weights > 0 do skip }\n"
    + "reflex leap { when update > 8 * median(update, 128 steps) do skip }\n"
    + LIMITS
)

OURS: dict[str, Callable[[nn.Module, bool], Step]] = {
    "ours: loss and gradient norm": guarded(GRADIENTS),
    "ours: and updates, weights": guarded(UPDATES),
    "ours: `conservative`": guarded("conservative"),
    "ours: `conservative`, `guard.clip_grad_norm_`": guarded_and_clipped("conservative"),
    "ours: `transformer_pretraining`": guarded("transformer_pretraining"),
}
PEERS: dict[str, tuple[str, Callable[[nn.Module, bool], Step]]] = {
    "ZClip": ("zclip", zclip),
    "StabilityGuard, skip": ("stabilityguard", stability_guard("skip")),
    "StabilityGuard, rollback": ("stabilityguard", stability_guard("rollback")),
    "AdaGC": ("pytorch_optimizer", other_optimizer("AdaGC")),
    "StableSPAM": ("pytorch_optimizer", other_optimizer("StableSPAM")),
}
UNGUARDED, CLIPPED = "unguarded", "unguarded, `clip_grad_norm_`"


def groups_of(arguments: argparse.Namespace) -> Iterator[dict[str, Callable[[nn.Module, bool], Step]]]:
    """Yield the arms that run together, as many as memory holds, each group beside the plain loops."""
    for kind in (OURS, {} if arguments.no_peers else _peers()):
        chosen = [(name, arm) for name, arm in kind.items() if _wanted(name, arguments.arms)]
        for first in range(0, len(chosen), arguments.together):
            yield {UNGUARDED: unguarded, CLIPPED: clipped, **dict(chosen[first : first + arguments.together])}


def _wanted(name: str, words: Sequence[str]) -> bool:
    return not words or any(word in name for word in words)


@functools.cache
def _peers() -> dict[str, Callable[[nn.Module, bool], Step]]:
    found = {}
    for name, (package, arm) in PEERS.items():
        reason = missing(package)
        if reason:
            print(f"{name}: {reason}")
        else:
            found[name] = arm
    return found


# Measuring

SLOW = 10
"""The presets read what needs forward hooks in every tenth tick."""


@define
class Loop:
    """One arm's training loop on its own copy of the model."""

    model: nn.Module
    step: Step
    batches: list[tuple[Tensor, Tensor]]
    steps: int = 0
    between: dict[bool, list[float]] = field(factory=lambda: {True: [], False: []})
    """CPU seconds of steps between the backward and the next forward pass: of every tenth step, and of the others."""

    def run(self, count: int) -> None:
        """Train `count` steps, and leave no gradients behind."""
        for at in range(count):
            inputs, targets = self.batches[at % len(self.batches)]
            loss = _scores(self.model(inputs), targets)
            self.model.zero_grad(set_to_none=True)
            loss.backward()
            began = time.process_time()
            self.step(loss.detach())
            self.between[self.steps % SLOW == 0].append(time.process_time() - began)
            self.steps += 1
        self.model.zero_grad(set_to_none=True)

    def typical(self) -> float:
        """Return the time between the passes, the ticks that read more weighted by how many there are."""
        due, rest = (statistics.median(self.between[tenth] or self.between[not tenth]) for tenth in (True, False))
        return due / SLOW + rest * (1 - 1 / SLOW)


def loops(bench: Bench, arms: Mapping[str, Callable[[nn.Module, bool], Step]], fused: bool) -> dict[str, Loop]:
    """Return the loops of the arms, on equal models and batches."""
    torch.manual_seed(0)
    model = bench.build()
    batches = [bench.draw() for _ in range(4)]
    found = {}
    for name, arm in arms.items():
        own = copy.deepcopy(model)
        found[name] = Loop(own, arm(own, fused), batches)
    return found


def snapshot_seconds(bench: Bench) -> float:
    """Return the median CPU time of one snapshot of model and optimizer, into slots that were written before."""
    from lbw_policy.actions import Snapshots

    model = bench.build()
    optimizer = _adamw(model, fused=True)
    for inputs, targets in (bench.draw(),):
        _scores(model(inputs), targets).backward()
        optimizer.step()
    model.zero_grad(set_to_none=True)
    snapshots, times = Snapshots(optimizer, model), []
    for tick in range(6):
        start = time.process_time()
        snapshots.capture(tick, tick)
        times.append(time.process_time() - start)
    return statistics.median(times[2:])


def every(policy: str) -> int | None:
    """Return the steps between two snapshots of a policy."""
    schedule = SnapshotSchedule.of(lbw.load(policy))
    return schedule.every if schedule else None


@frozen
class Found:
    """What one group of arms took: whole steps, and the typical time between the passes."""

    times: dict[str, Times]
    between: dict[str, float]
    blocks: int


def measured(made: dict[str, Loop], arguments: argparse.Namespace) -> Found:
    """Time the loops in turns."""
    count = arguments.steps
    for loop in made.values():
        loop.run(2)  # the optimizer's state comes to be
    began = time.perf_counter()
    for loop in made.values():
        loop.run(count)
        loop.between = {True: [], False: []}
    blocks = arguments.blocks or _blocks(arguments.seconds, time.perf_counter() - began)
    arms = [Arm(name, lambda loop=loop: loop.run(count), count) for name, loop in made.items()]  # type: ignore[misc]
    times = in_turns(arms, blocks)
    return Found(times, {name: loop.typical() for name, loop in made.items()}, blocks)


def table(size: str, bench: Bench, arguments: argparse.Namespace) -> None:
    """Time one model and print its table."""
    snapshot, rows, blocks = snapshot_seconds(bench), dict[str, list[str]](), []
    for group in groups_of(arguments):
        made = loops(bench, group, arguments.fused)
        parameters = sum(p.numel() for p in next(iter(made.values())).model.parameters())
        found = measured(made, arguments)
        del made
        gc.collect()
        blocks.append(found.blocks)
        rows = {name: _row(name, found, snapshot) for name in found.times} | rows
    kind = "fused AdamW" if arguments.fused else "AdamW"
    work = f"{parameters / 1e6:.1f}M parameters, {bench.work}, {kind}, {min(blocks)} blocks or more"
    show(
        f"{bench.name} {size}: {work}; a snapshot {snapshot / MS:.3g} ms",
        ("loop", "ms a step", "CPU ms", "whole step", "between passes", "snapshots", "all, over clipping"),
        [rows[name] for name in (UNGUARDED, CLIPPED, *OURS, *PEERS) if name in rows],
    )


def _blocks(seconds: float, block: float) -> int:
    """Return how many blocks fit into the time, an odd number of at least 5."""
    return max(5, int(seconds / block) // 2 * 2 + 1)


def _row(name: str, found: Found, snapshot: float) -> list[str]:
    """Return one loop's figures; `all, over clipping` adds up what was found between the passes, and snapshots."""
    times, base, extra = found.times[name], found.times[UNGUARDED], _snapshots(name, snapshot)
    step = statistics.median(base.cpu)
    own, clip = (found.between[one] - found.between[UNGUARDED] for one in (name, CLIPPED))
    return [
        name,
        times.shown(MS),
        times.cpu_shown(MS),
        over(times.cpu, base.cpu),
        f"{100 * own / step:+.2f} %",
        f"{100 * extra / step:+.2f} %" if extra else "",
        f"{100 * (own + extra - clip) / (step + clip):+.2f} %",
    ]


def over(one: Sequence[float], base: Sequence[float]) -> str:
    """Return by how much one arm exceeds another: the median over blocks of the ratio within a block."""
    return f"{100 * (statistics.median(a / b for a, b in zip(one, base, strict=True)) - 1):+.1f} %"


def _snapshots(name: str, seconds: float) -> float:
    """Return the time of a policy's snapshots, spread over the steps."""
    if not name.startswith("ours: `"):
        return 0.0
    steps = every(name.split("`")[1])
    return seconds / steps if steps else 0.0


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=tuple(SIZES), default=list(SIZES))
    parser.add_argument("--models", nargs="+", choices=("MLP", "GPT", "CNN"), default=["MLP", "GPT", "CNN"])
    parser.add_argument("--arms", nargs="+", default=[], metavar="WORD", help="only arms whose name holds a word")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--fused", action="store_true", help="fused AdamW instead of the default")
    parser.add_argument("--blocks", type=int, help="blocks a model; as many as fit into --seconds if left out")
    parser.add_argument("--seconds", type=float, default=150, help="time for each model (default 150)")
    parser.add_argument("--steps", type=int, default=2, help="steps a block")
    parser.add_argument("--together", type=int, default=5, help="arms in memory at once, besides two plain ones")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    machine = (
        f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"
    )
    print(f"{machine}; {arguments.threads} thread(s), blocks of {arguments.steps} steps")
    for size in arguments.sizes:
        for bench in SIZES[size]:
            if bench.name in arguments.models:
                table(size, bench, arguments)
                gc.collect()


if __name__ == "__main__":
    main()
