"""How far the sampled signals are from the full computation: `python benchmarks/estimators.py`.

Real trainings of the lab's GPT and of an MLP. At every step each sampled signal is read as a policy would, and
computed from all elements, in double precision, by plain code that shares nothing with the package. One run prints
the markdown tables of `docs/signals.md`.
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from attrs import define, field, frozen
from torch import Tensor, nn, optim
from torch.nn import functional

from lbw_policy.lab.gpt import Gpt, GptShape
from lbw_policy.lab.language import ByteLanguage
from lbw_policy.lab.text import library_text
from lbw_policy.telemetry import Collector, Layers, Plan

Values = dict[str, float]
Vectors = dict[str, Tensor]

SAMPLED = (
    "param_norm", "update_norm", "update_ratio", "update_ratio_max", "curvature", "overshoot", "grad_agreement",
    "momentum_agreement", "moment_rms", "moment_lag", "grad_underflow", "grad_overflow", "exponent_spread",
    "exponent_kurtosis", "exponent_shift", "activation_variance", "activation_outliers", "activation_max",
    "attention_logit_max",
)  # fmt: skip
ABSOLUTE = frozenset({"grad_agreement", "momentum_agreement", "grad_underflow", "grad_overflow", "exponent_kurtosis",
                      "exponent_shift", "activation_outliers", "overshoot"})  # fmt: skip
"""Signals whose error is told as it is; that of the others is relative to the truth."""
WARM = 5


# Trainings


@frozen(eq=False)
class Training:
    """A model, its optimizer, and the loss of a step."""

    name: str
    model: nn.Module
    optimizer: optim.Optimizer
    loss: Callable[[int], Tensor]


def gpt(make: Callable[..., optim.Optimizer], name: str) -> Training:
    """Return the lab's byte-level GPT, 3.3 million parameters, on source text."""
    task = ByteLanguage(library_text(2_000_000), GptShape(width=256, layers=4, heads=8, context=128), size=8)
    model = task.model(0)
    return Training(f"GPT, {name}", model, make(model.parameters()), lambda step: task.loss(model, task.batch(0, step)))


def mlp(make: Callable[..., optim.Optimizer], name: str) -> Training:
    """Return an MLP, 1.1 million parameters, that learns the largest of ten random linear forms."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10))
    teacher = torch.randn(64, 10)

    def loss(step: int) -> Tensor:
        inputs = torch.randn(64, 64, generator=torch.Generator().manual_seed(step))
        return functional.cross_entropy(model(inputs), (inputs @ teacher).argmax(1))

    return Training(f"MLP, {name}", model, make(model.parameters()), loss)


def adamw(parameters: Iterator[nn.Parameter]) -> optim.Optimizer:
    """Return AdamW as for pre-training."""
    return optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)


def momentum(parameters: Iterator[nn.Parameter]) -> optim.Optimizer:
    """Return SGD with momentum."""
    return optim.SGD(parameters, lr=0.05, momentum=0.9)


# The full computation


def state(training: Training, *names: str) -> Vectors:
    """Return one kind of optimizer state by parameter, in double precision, where there is some."""
    held = {name: training.optimizer.state.get(parameter, {}) for name, parameter in training.model.named_parameters()}
    return {name: found[key].detach().double().clone() for name, found in held.items() for key in names if key in found}


def dot(left: Vectors, right: Vectors) -> float:
    """Return the product of two sets of vectors."""
    return sum(float((left[name] * right[name]).sum()) for name in left)


def minus(left: Vectors, right: Vectors) -> Vectors:
    """Return the difference of two sets of vectors."""
    return {name: left[name] - right[name] for name in left}


def cosine(left: Vectors, right: Vectors) -> float:
    """Return the cosine of two sets of vectors."""
    return dot(left, right) / math.sqrt(dot(left, left) * dot(right, right))


@define(eq=False)
class Full:
    """Every signal from all elements; `layers` are the names of each layer's parameters."""

    training: Training
    layers: Mapping[str, Sequence[str]]
    weights: Vectors = field(factory=dict)
    gradients: Vectors = field(factory=dict)
    exponents: list[float] = field(factory=list)
    outputs: dict[str, Tensor] = field(factory=dict)
    logits: list[Tensor] = field(factory=list)

    def watch(self) -> None:
        """Keep the outputs of all layers, and the logits of the lab's attention."""
        for name in self.layers:
            module = self.training.model.get_submodule(name) if name != "root" else self.training.model
            module.register_forward_hook(functools.partial(self._keep, name))

    def _keep(self, name: str, _: nn.Module, __: object, output: Tensor) -> None:
        self.outputs[name] = output.detach().double()
        if name.endswith("qkv") and isinstance(self.training.model, Gpt):
            batch, length, width = output.shape
            heads = self.training.model.blocks[0].heads
            query, key, _ = output.detach().double().view(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
            logits = query @ key.transpose(-1, -2) / math.sqrt(width / 3 / heads)
            self.logits.append(logits.masked_fill(torch.ones(length, length).triu(1).bool(), -math.inf).amax())

    def read(self) -> Values:
        """Return the truth of this step; the gradients are in place."""
        named = dict(self.training.model.named_parameters())
        weights = {name: p.detach().double().clone() for name, p in named.items()}
        gradients = {name: p.grad.detach().double().clone() for name, p in named.items() if p.grad is not None}
        found = {"param_norm": math.sqrt(dot(weights, weights))}
        if self.weights:
            found |= self._motion(weights, gradients)
        found |= self._moments(gradients) | self._exponents(gradients) | self._outputs()
        self.weights, self.gradients = weights, gradients
        return found

    def _motion(self, weights: Vectors, gradients: Vectors) -> Values:
        change, turned = minus(weights, self.weights), minus(gradients, self.gradients)
        moved, bent = dot(change, change), dot(turned, change)
        ratios = [math.sqrt(dot(*[{n: change[n] for n in names}] * 2) / dot(*[{n: self.weights[n] for n in names}] * 2))
                  for names in self.layers.values() if dot(*[{n: self.weights[n] for n in names}] * 2)]  # fmt: skip
        return {
            "update_norm": math.sqrt(moved),
            "update_ratio": math.sqrt(moved / dot(self.weights, self.weights)),
            "update_ratio_max": max(ratios),
            "curvature": bent / moved,
            "overshoot": bent / -dot(self.gradients, change),
            "grad_agreement": cosine(gradients, self.gradients),
        }

    def _moments(self, gradients: Vectors) -> Values:
        past, squares = state(self.training, "exp_avg", "momentum_buffer"), state(self.training, "exp_avg_sq")
        found = {"momentum_agreement": cosine(gradients, past)} if past else {}
        if not squares:
            return found
        (group,) = self.training.optimizer.param_groups
        decay, step = group["betas"][1], float(next(iter(self.training.optimizer.state.values()))["step"])
        coming = {
            n: (v * decay + gradients[n] ** 2 * (1 - decay)) / (1 - decay ** (step + 1)) for n, v in squares.items()
        }
        rms = [
            math.sqrt(sum(float((gradients[n] ** 2 / coming[n].clamp(min=group["eps"] ** 2)).sum()) for n in names)
                      / sum(gradients[n].numel() for n in names))
            for names in self.layers.values()
        ]  # fmt: skip
        total = sum(float(v.sum()) for v in squares.values()) / (1 - decay**step)
        return found | {"moment_rms": max(rms), "moment_lag": math.sqrt(total / dot(gradients, gradients))}

    def _exponents(self, gradients: Vectors) -> Values:
        flat = torch.cat([gradient.flatten() for gradient in gradients.values()])
        exponents = (torch.frexp(flat[flat != 0])[1] - 1).double()
        spread, small = float(exponents.std(correction=0)), float((exponents < -126).sum() + (flat == 0).sum())
        found = {
            "grad_underflow": small / flat.numel(),
            "grad_overflow": float((exponents >= 126).sum()) / flat.numel(),
            "exponent_spread": spread,
            "exponent_kurtosis": float(((exponents - exponents.mean()) / spread).pow(4).mean()) - 3,
        }
        shares = torch.bincount((exponents + 200).long(), minlength=400).double() / exponents.numel()
        if self.exponents:
            found["exponent_shift"] = float((shares - torch.tensor(self.exponents)).cumsum(0).abs().sum())
        self.exponents = shares.tolist()
        return found

    def _outputs(self) -> Values:
        outputs, logits = list(self.outputs.values()), self.logits
        self.logits = []
        roots = [float(output.square().mean().sqrt()) for output in outputs]
        pairs = [(output, root) for output, root in zip(outputs, roots, strict=True) if root]
        found = {
            "activation_variance": max(float(output.var(correction=0)) for output in outputs),
            "activation_outliers": max(float((output.abs() > 6 * root).double().mean()) for output, root in pairs),
            "activation_max": max(float(output.abs().max()) / root for output, root in pairs),
        }
        return found | ({"attention_logit_max": float(max(logits))} if logits else {})


# Estimates beside the truth


def measured(training: Training, steps: int) -> dict[str, list[tuple[float, float]]]:
    """Return estimate and truth of every signal at every step after the first few."""
    layers = Layers.of(training.optimizer, training.model)
    names = {id(parameter): name for name, parameter in training.model.named_parameters()}
    full = Full(training, {layer: [names[id(p)] for p in held] for layer, held in layers.parameters.items()})
    asked = [name for name in SAMPLED if _exists(name, training)]
    collector = Collector(training.optimizer, layers, Plan(dict.fromkeys(asked, 1)))
    full.watch()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in asked}
    for step in range(steps):
        training.optimizer.zero_grad()
        training.loss(step).backward()
        truth, values = full.read(), collector.read(step).values
        if step >= WARM:
            for name in asked:
                if values[name] is not None and name in truth:
                    found[name].append((values[name], truth[name]))
        training.optimizer.step()
    return found


def _exists(name: str, training: Training) -> bool:
    if name in ("moment_rms", "moment_lag"):
        return "betas" in training.optimizer.defaults
    return name != "attention_logit_max" or isinstance(training.model, Gpt)


def errors(name: str, pairs: Sequence[tuple[float, float]]) -> list[float]:
    """Return the error of each estimate: a difference for shares and cosines, else relative to the truth."""
    if name in ABSOLUTE:
        return [estimate - truth for estimate, truth in pairs]
    return [estimate / truth - 1 for estimate, truth in pairs if truth]


def follows(pairs: Sequence[tuple[float, float]]) -> str:
    """Return the correlation of estimate and truth over the run, which is what a policy's baselines live on."""
    estimates, truths = zip(*pairs, strict=True)
    if len(set(truths)) < 2 or len(set(estimates)) < 2:
        return "-"
    return f"{statistics.correlation(estimates, truths):.3f}"


def shown(name: str, value: float) -> str:
    """Return an error for people: per cent where it is relative."""
    return f"{value:.4f}" if name in ABSOLUTE else f"{100 * value:.2f} %"


def cell(name: str, pairs: Sequence[tuple[float, float]]) -> str:
    """Return mean error, root mean square error and correlation."""
    found = errors(name, pairs)
    if not found:
        return "-"
    square = math.sqrt(statistics.fmean(error * error for error in found))
    sign = "" if statistics.fmean(found) < 0 else "+"
    return f"{sign}{shown(name, statistics.fmean(found))}, {shown(name, square)}, {follows(pairs)}"


def show(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print one markdown table."""
    print(f"\n### {title}\n")
    for cells in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(cells)} |")
    sys.stdout.flush()


TRAININGS: Sequence[Callable[[], Training]] = (
    lambda: gpt(adamw, "AdamW"),
    lambda: gpt(momentum, "SGD"),
    lambda: mlp(adamw, "AdamW"),
    lambda: mlp(momentum, "SGD"),
)


def accuracy(steps: int) -> None:
    """Compare every sampled signal with the full computation."""
    columns = []
    names = []
    for make in TRAININGS:
        training = make()
        names.append(training.name)
        columns.append({name: cell(name, pairs) for name, pairs in measured(training, steps).items()})
    rows = [[f"`{name}`", *(column.get(name, "-") for column in columns)] for name in SAMPLED]
    show("Sampled against full: mean error, rms error, correlation", ("signal", *names), rows)


# What two batches add to curvature and overshoot, and how good Hutchinson's estimate is


def slopes(training: Training, step: int, weights: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the gradient of one step's batch at the given weights."""
    live = dict(training.model.named_parameters())
    kept = {name: parameter.detach().clone() for name, parameter in live.items()}
    with torch.no_grad():
        for name, value in weights.items():
            live[name].copy_(value)
    found = torch.autograd.grad(training.loss(step), list(live.values()))
    with torch.no_grad():
        for name, value in kept.items():
            live[name].copy_(value)
    return [gradient.double() for gradient in found]


def one_batch(training: Training, steps: int) -> dict[str, list[tuple[float, float]]]:
    """Return the signals of two batches, and what they would be if both gradients came from the last step's batch."""
    layers = Layers.of(training.optimizer, training.model)
    found: dict[str, list[tuple[float, float]]] = {"curvature": [], "overshoot": []}
    collector = Collector(training.optimizer, layers, Plan(dict.fromkeys(found, 1)))
    truth: Values = {}
    for step in range(steps):
        training.optimizer.zero_grad()
        training.loss(step).backward()
        values = collector.read(step).values
        if step >= WARM:
            for name, pairs in found.items():
                if (value := values[name]) is not None:
                    pairs.append((value, truth[name]))
        before = {name: p.detach().clone() for name, p in training.model.named_parameters()}
        training.optimizer.step()
        after = {name: p.detach().clone() for name, p in training.model.named_parameters()}
        change = [(after[name] - before[name]).double() for name in after]
        start, end = slopes(training, step, before), slopes(training, step, after)
        bent = sum(float(((e - s) * c).sum()) for s, e, c in zip(start, end, change, strict=True))
        slope = sum(float((s * c).sum()) for s, c in zip(start, change, strict=True))
        truth = {"curvature": bent / sum(float((c * c).sum()) for c in change), "overshoot": bent / -slope}
    return found


def batches(steps: int) -> None:
    """Show what comes from comparing the gradients of two batches."""
    rows = []
    for make in TRAININGS:
        training = make()
        for name, pairs in one_batch(training, steps).items():
            two, one = (statistics.median(column) for column in zip(*pairs, strict=True))
            rows.append([f"`{name}`", training.name, f"{one:.3g}", f"{two:.3g}", follows(pairs)])
    rows.sort()
    head = ("signal", "training", "one batch, median", "two batches (the signal), median", "correlation")
    show("Both gradients from one batch, or from two", head, rows)


def small() -> tuple[nn.Module, Tensor, Tensor]:
    """Return a net of 978 weights that has learned a little, and its batch."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 10))
    inputs, labels = torch.randn(128, 16), torch.randint(10, (128,))
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return model, inputs, labels


def hessian(draws: int = 400) -> None:
    """Compare `hessian_trace` and `gradient_curvature` with the whole Hessian of a small net."""
    model, inputs, labels = small()
    loss = functional.cross_entropy(model(inputs), labels)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, model.parameters(), create_graph=True)])
    whole = torch.stack([
        torch.cat([h.flatten() for h in torch.autograd.grad(one, model.parameters(), retain_graph=True)])
        for one in gradient
    ]).double()  # fmt: skip
    slope = gradient.detach().double()
    truth = {
        "hessian_trace": float(whole.trace()),
        "gradient_curvature": float(slope @ whole @ slope / (slope @ slope)),
    }
    optimizer = optim.SGD(model.parameters(), lr=0.0)
    collector = Collector(optimizer, Layers.of(optimizer, model), Plan(dict.fromkeys(truth, 1)))
    found: dict[str, list[float]] = {name: [] for name in truth}
    for tick in range(draws):
        collector.curvature(functional.cross_entropy(model(inputs), labels))
        for name, value in collector.read(tick).values.items():
            found[name].append(value if value is not None else math.nan)
    rows = [[f"`{name}`", f"{truth[name]:.4g}", f"{statistics.fmean(drawn):.4g}", f"{statistics.stdev(drawn):.3g}"]
            for name, drawn in found.items()]  # fmt: skip
    expected = math.sqrt(2 * float(whole.square().sum() - whole.diagonal().square().sum()))
    rows[0].append(f"{expected:.3g}")
    rows[1].append("0")
    head = ("signal", "whole Hessian", f"mean of {draws} ticks", "standard deviation of one", "by the formula")
    show("Second derivatives", head, rows)


TABLES: Mapping[str, Callable[[int], None]] = {
    "accuracy": accuracy,
    "batches": batches,
    "hessian": lambda _: hessian(),
}


def main() -> None:
    """Run the tables that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tables", nargs="*", help=f"some of {', '.join(TABLES)}; all if none is named")
    parser.add_argument("--steps", type=int, default=120)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    for name in arguments.tables or TABLES:
        TABLES[name](arguments.steps)
    print(f"\n({time.perf_counter() - began:.0f} s)")


if __name__ == "__main__":
    main()
