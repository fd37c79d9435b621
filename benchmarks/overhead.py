"""What a guard adds to the time of a training step: `python benchmarks/overhead.py`.

Every arm trains its own copy of the same model on the same batches; the arms take turns, block by block.
Medians over blocks with quartiles, wall and CPU time. A snapshot is too rare for a median to show it: it is
timed by itself and added, spread over the steps between two. One run prints markdown tables.
Peers come with `pip install -c constraints.txt -e '.[bench]'`; one that is missing is named.
"""

from __future__ import annotations

import argparse
import copy
import gc
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

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


def arms_of(peers: bool) -> dict[str, Callable[[nn.Module, bool], Step]]:
    """Return every arm that can run here, by name."""
    found = {UNGUARDED: unguarded, CLIPPED: clipped, **OURS}
    for name, (package, arm) in PEERS.items() if peers else ():
        reason = missing(package)
        if reason:
            print(f"{name}: {reason}")
        else:
            found[name] = arm
    return found


# Measuring


@define
class Loop:
    """One arm's training loop on its own copy of the model."""

    bench: Bench
    model: nn.Module
    step: Step
    seed: int = 0
    batches: list[tuple[Tensor, Tensor]] = field(factory=list)

    def run(self, count: int) -> None:
        """Train `count` steps, and leave no gradients behind."""
        for at in range(count):
            inputs, targets = self.batches[at % len(self.batches)]
            loss = _scores(self.model(inputs), targets)
            self.model.zero_grad(set_to_none=True)
            loss.backward()
            self.step(loss.detach())
        self.model.zero_grad(set_to_none=True)


def loops(bench: Bench, chosen: Sequence[str], peers: bool, fused: bool) -> Iterator[tuple[str, Loop]]:
    """Yield the loops of the arms."""
    torch.manual_seed(0)
    model = bench.build()
    batches = [bench.draw() for _ in range(4)]
    for name, arm in arms_of(peers).items():
        if not chosen or any(word in name for word in chosen):
            own = copy.deepcopy(model)
            yield name, Loop(bench, own, arm(own, fused), batches=batches)


def snapshot_seconds(bench: Bench) -> float:
    """Return the median time of one snapshot of model and optimizer, into slots that were written before."""
    from lbw_policy.actions import Snapshots

    model = bench.build()
    optimizer = _adamw(model, fused=True)
    for inputs, targets in (bench.draw(),):
        _scores(model(inputs), targets).backward()
        optimizer.step()
    model.zero_grad(set_to_none=True)
    snapshots, times = Snapshots(optimizer, model), []
    for tick in range(6):
        start = time.perf_counter()
        snapshots.capture(tick, tick)
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def every(policy: str) -> int | None:
    """Return the steps between two snapshots of a policy."""
    schedule = SnapshotSchedule.of(lbw.load(policy))
    return schedule.every if schedule else None


def table(size: str, bench: Bench, arguments: argparse.Namespace) -> None:
    """Time one model and print its table."""
    count, blocks = arguments.steps, arguments.blocks
    made = dict(loops(bench, arguments.arms, not arguments.no_peers, arguments.fused))
    parameters = sum(p.numel() for p in next(iter(made.values())).model.parameters())
    for loop in made.values():
        loop.run(2)  # the optimizer's state comes to be
    arms = [Arm(name, lambda loop=loop: loop.run(count), count) for name, loop in made.items()]  # type: ignore[misc]
    times = in_turns(arms, blocks)
    made.clear()
    del arms
    gc.collect()
    snapshot = snapshot_seconds(bench)
    rows = [_row(name, found, times, snapshot) for name, found in times.items()]
    kind = "fused AdamW" if arguments.fused else "AdamW"
    work = f"{parameters / 1e6:.1f}M parameters, {bench.work}, {kind}"
    show(
        f"{bench.name} {size}: {work}; a snapshot {snapshot / MS:.3g} ms",
        ("loop", "ms a step", "CPU ms", "over unguarded", "CPU", "snapshots", "all, over clipping, CPU"),
        rows,
    )


def _row(name: str, found: Times, times: dict[str, Times], snapshot: float) -> list[str]:
    base, clip = times.get(UNGUARDED, found), times.get(CLIPPED)
    extra = _snapshots(name, snapshot)
    return [
        name,
        found.shown(MS),
        found.cpu_shown(MS),
        over(found.wall, base.wall),
        over(found.cpu, base.cpu),
        f"{100 * extra / base.median:+.1f} %" if extra else "",
        over([one + extra for one in found.cpu], clip.cpu) if clip else "",
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
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--steps", type=int, default=2, help="steps a block")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    machine = (
        f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"
    )
    print(f"{machine}; {arguments.threads} thread(s), {arguments.blocks} blocks of {arguments.steps} steps")
    for size in arguments.sizes:
        for bench in SIZES[size]:
            if bench.name in arguments.models:
                table(size, bench, arguments)
                gc.collect()


if __name__ == "__main__":
    main()
