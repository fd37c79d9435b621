"""What each signal costs on a CPU with one thread: `python benchmarks/telemetry_costs.py`.

Three trainings of 5 and 25 million parameters. All arms of a table are timed in every step, in an order that turns,
with caches swept before each; a cell has the median CPU time and its share of the step. One run prints the markdown
tables of `docs/signals.md`.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from attrs import define, field, frozen
from torch import Tensor, nn, optim
from torch.nn import functional

from lbw_policy.lab.gpt import Gpt, GptShape
from lbw_policy.telemetry import Collector, Layers, Plan

EVICTED = 6_000_000
"""Floats written between two arms: more than the caches nearest to a core hold."""


@frozen(eq=False)
class Training:
    """A model, its optimizer and the loss of one batch, always the same."""

    name: str
    model: nn.Module
    optimizer: optim.Optimizer
    loss: Callable[[], Tensor]


def mlp() -> Training:
    """Return an MLP of 4.6 million parameters and a batch of 512."""
    torch.manual_seed(0)
    widths = (256, 1400, 1400, 1400, 256)
    layers = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
    model, inputs, labels = nn.Sequential(*layers[:-1]), torch.randn(512, 256), torch.randint(256, (512,))
    return training("MLP 4.6M", model, lambda: functional.cross_entropy(model(inputs), labels))


def gpt(name: str, shape: GptShape) -> Training:
    """Return a GPT and a batch of 4 sequences."""
    torch.manual_seed(0)
    model, tokens = Gpt(shape), torch.randint(shape.vocabulary, (4, shape.context))
    targets = tokens.roll(-1, 1).flatten()
    return training(name, model, lambda: functional.cross_entropy(model(tokens).flatten(0, 1), targets))


def training(name: str, model: nn.Module, loss: Callable[[], Tensor]) -> Training:
    """Return a training by the default AdamW."""
    return Training(name, model, optim.AdamW(model.parameters(), lr=1e-4), loss)


TRAININGS: Sequence[Callable[[], Training]] = (
    mlp,
    lambda: gpt("GPT 5.0M", GptShape(256, 6, 8, 128, 1024)),
    lambda: gpt("GPT 25.8M", GptShape(512, 8, 8, 128, 1024)),
)


@define
class Times:
    """CPU seconds of every arm and of the steps around them."""

    arms: dict[str, list[float]] = field(factory=dict)
    steps: list[float] = field(factory=list)

    def timed(self, name: str, run: Callable[[], object]) -> None:
        """Run and time one arm, with caches swept before."""
        torch.zeros(EVICTED).add_(1)
        began = time.process_time()
        run()
        self.arms.setdefault(name, []).append(time.process_time() - began)

    def shown(self, name: str, warm: int = 2) -> str:
        """Return an arm's median in milliseconds, and its share of the step."""
        found, step = statistics.median(self.arms[name][warm:]), statistics.median(self.steps[warm:])
        return f"{1e3 * found:.2f} ({100 * found / step:.2f} %)"


def turned(names: Sequence[str], step: int) -> list[str]:
    """Return the names in another order at each step."""
    return [*names[step % len(names) :], *names[: step % len(names)]]


def show(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print one markdown table."""
    print(f"\n### {title}\n")
    for cells in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(cells)} |")
    sys.stdout.flush()


def run(of: Training, arms: Mapping[str, Callable[[], object]], steps: int) -> Times:
    """Time all arms between backward and update of every step."""
    times = Times()
    for step in range(steps):
        began = time.process_time()
        of.optimizer.zero_grad()
        of.loss().backward()
        passed = time.process_time() - began
        for name in turned(list(arms), step):
            times.timed(name, arms[name])
        began = time.process_time()
        of.optimizer.step()
        times.steps.append(passed + time.process_time() - began)
    return times


# Ways to the norm of every gradient


def compiled(parameters: Sequence[nn.Parameter]) -> Callable[[], object] | None:
    """Return one compiled kernel for all sums of squares; None where nothing can be compiled."""

    def squares(gradients: list[Tensor]) -> Tensor:
        return torch.stack([gradient.square().sum() for gradient in gradients])

    try:
        found = torch.compile(squares, dynamic=False)
        found([parameter.grad for parameter in parameters if parameter.grad is not None])
    except Exception as error:
        print(f"\nno compiled kernel: {type(error).__name__}")
        return None
    return lambda: found([parameter.grad for parameter in parameters if parameter.grad is not None])


def norm_arms(of: Training) -> dict[str, Callable[[], object]]:
    """Return the ways that pass over finished gradients."""
    parameters = list(of.model.parameters())
    arms: dict[str, Callable[[], object]] = {
        "`torch._foreach_norm` (ours)": lambda: torch._foreach_norm(
            [p.grad for p in parameters], 2, dtype=torch.float32
        ),
        "`vector_norm`, tensor by tensor": lambda: [torch.linalg.vector_norm(p.grad) for p in parameters],
        "`dot` (BLAS), tensor by tensor": lambda: [torch.dot(p.grad.view(-1), p.grad.view(-1)) for p in parameters],
        "`clip_grad_norm_`": lambda: nn.utils.clip_grad_norm_(parameters, 1e9),
    }
    of.loss().backward()
    kernel = compiled(parameters)
    return arms if kernel is None else arms | {"one compiled kernel (inductor)": kernel}


def hooked(of: Training, steps: int) -> str:
    """Return what norms in post-accumulate hooks, while each gradient is in the cache, add to a backward pass."""
    parameters = list(of.model.parameters())
    kept: dict[int, Tensor] = {}

    def take(parameter: nn.Parameter) -> None:
        assert parameter.grad is not None
        kept[id(parameter)] = torch.linalg.vector_norm(parameter.grad, dtype=torch.float32)

    def backward() -> float:
        of.optimizer.zero_grad()
        loss = of.loss()
        began = time.process_time()
        loss.backward()
        return time.process_time() - began

    added = []
    for _ in range(steps):
        plain = backward()
        handles = [parameter.register_post_accumulate_grad_hook(take) for parameter in parameters]
        added.append(backward() - plain)
        for handle in handles:
            handle.remove()
    low, middle, high = statistics.quantiles(added, n=4)
    return f"{1e3 * middle:.2f} [{1e3 * low:.2f}..{1e3 * high:.2f}]"


def norms(steps: int) -> None:
    """Compare the ways to the norm of every gradient."""
    columns: dict[str, list[str]] = {}
    names = []
    for make in TRAININGS:
        of = make()
        times = run(of, norm_arms(of), steps)
        names.append(f"{of.name}, step {1e3 * statistics.median(times.steps[2:]):.0f} ms")
        for name in times.arms:
            columns.setdefault(name, []).append(times.shown(name))
        columns.setdefault("hooks during backward, added to it", []).append(hooked(of, steps))
    show("Ways to the norm of every gradient: CPU ms (share of the step)", ("way", *names),
         [[name, *cells] for name, cells in columns.items()])  # fmt: skip


# One reading of each group of signals

STANDARD = ("loss", "lr", "grad_norm", "grad_agreement", "update_ratio", "param_norm", "overshoot", "nonfinite_grads",
            "nonfinite_params")  # fmt: skip
READ: Mapping[str, Sequence[str]] = {
    "nothing": (),
    "`lr`, `step_time`": ("lr", "step_time"),
    "`grad_norm`, `nonfinite_grads`": ("grad_norm", "nonfinite_grads"),
    "those and `grad_norm_max`, `_min`, `_spread`": (
        "grad_norm", "nonfinite_grads", "grad_norm_max", "grad_norm_min", "grad_norm_spread",
    ),
    "`nonfinite_params`": ("nonfinite_params",),
    "`param_norm`": ("param_norm",),
    "`update_norm`, `update_ratio`": ("update_norm", "update_ratio"),
    "those and `update_ratio_max`": ("update_norm", "update_ratio", "update_ratio_max"),
    "`curvature`, `overshoot`": ("curvature", "overshoot"),
    "`grad_agreement`": ("grad_agreement",),
    "`momentum_agreement`": ("momentum_agreement",),
    "`moment_rms`, `moment_lag`": ("moment_rms", "moment_lag"),
    "the five of exponents": (
        "grad_underflow", "grad_overflow", "exponent_spread", "exponent_kurtosis", "exponent_shift",
    ),
    "all a risk model's `standard` features read every step": STANDARD,
    "everything above together": (
        *STANDARD, "step_time", "grad_norm_max", "grad_norm_min", "grad_norm_spread", "update_norm", "update_ratio_max",
        "curvature", "momentum_agreement", "moment_rms", "moment_lag", "grad_underflow",
        "grad_overflow", "exponent_spread", "exponent_kurtosis", "exponent_shift",
    ),
}  # fmt: skip


def read_arms(of: Training) -> dict[str, Callable[[], object]]:
    """Return one reading, every tick, of each group of signals."""
    return {name: reading(of, sources) for name, sources in READ.items()}


def reading(of: Training, sources: Sequence[str]) -> Callable[[], object]:
    """Return one reading of some signals, tick after tick."""
    collector = Collector(of.optimizer, Layers.of(of.optimizer, of.model), Plan(dict.fromkeys(sources, 1)))
    ticks = itertools.count()
    return lambda: collector.read(next(ticks))


def readings(steps: int) -> None:
    """Time one reading of each group of signals."""
    columns: dict[str, list[str]] = {}
    names = []
    for make in TRAININGS:
        of = make()
        times = run(of, read_arms(of), steps)
        names.append(f"{of.name}, step {1e3 * statistics.median(times.steps[2:]):.0f} ms")
        for name in READ:
            columns.setdefault(name, []).append(times.shown(name))
    show("One reading: CPU ms (share of the step)", ("signals", *names),
         [[name, *cells] for name, cells in columns.items()])  # fmt: skip


# Signals that hook into the forward pass

HOOKED = {
    "the three of activations": ("activation_variance", "activation_outliers", "activation_max"),
    "`attention_logit_max`": ("attention_logit_max",),
}


def watched(of: Training, sources: Sequence[str], steps: int) -> tuple[float, float, float]:
    """Return what one due tick adds to forward pass and reading, in quartiles, in CPU seconds."""
    collector = Collector(of.optimizer, Layers.of(of.optimizer, of.model), Plan(dict.fromkeys(sources, 2)))
    due: list[float] = []
    idle: list[float] = []
    for tick in range(2 * steps):
        began = time.process_time()
        of.loss()
        collector.read(tick)
        (idle if tick % 2 else due).append(time.process_time() - began)
    collector.detach()
    low, middle, high = statistics.quantiles([a - b for a, b in zip(due[2:], idle[2:], strict=True)], n=4)
    return low, middle, high


def forward(steps: int) -> None:
    """Time the signals that hook into the forward pass."""
    rows = []
    for name, sources in HOOKED.items():
        cells = [name]
        for make in TRAININGS:
            of = make()
            if "attention_logit_max" in sources and not isinstance(of.model, Gpt):
                cells.append("-")
                continue
            cells.append("{1:.2f} [{0:.2f}..{2:.2f}]".format(*(1e3 * t for t in watched(of, sources, steps))))
        rows.append(cells)
    title = "What a due tick adds to the forward pass and its reading: CPU ms"
    show(title, ("signals", *(make().name for make in TRAININGS)), rows)


# Second derivatives


def double(steps: int) -> None:
    """Time `guard.curvature(loss)` beside a step."""
    rows = []
    for source in ("gradient_curvature", "hessian_trace"):
        cells = [f"`{source}`"]
        for make in TRAININGS:
            of = make()
            collector = Collector(of.optimizer, Layers.of(of.optimizer, of.model), Plan({source: 1}))
            times = run(of, {"hvp": lambda of=of, collector=collector: twice(of, collector)}, max(4, steps // 5))
            cells.append(times.shown("hvp"))
        rows.append(cells)
    show(
        "Second derivatives of one batch: CPU ms (share of the step)", ("signal", *(m().name for m in TRAININGS)), rows
    )


def twice(of: Training, collector: Collector) -> None:
    """Differentiate the loss twice; the fused attention of a CPU cannot, so the plain one stands in."""
    with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        collector.curvature(of.loss())
    assert any(value is not None for value in collector.read(0).values.values())


TABLES: Mapping[str, Callable[[int], None]] = {
    "norms": norms,
    "readings": readings,
    "forward": forward,
    "double": double,
}


def main() -> None:
    """Run the tables that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tables", nargs="*", help=f"some of {', '.join(TABLES)}; all if none is named")
    parser.add_argument("--steps", type=int, default=24)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.tables or TABLES:
        TABLES[name](arguments.steps)


if __name__ == "__main__":
    main()
