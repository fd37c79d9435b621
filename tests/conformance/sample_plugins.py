"""Plugins that keep their contract, and plugins that each break one line of it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

import numpy as np
import torch
from attrs import evolve
from torch import Tensor, nn

from lbw_policy.plugins import ActionContext, ActionPlugin, FunctionPlugin, SignalContext, SignalPlugin


def parameters(context: SignalContext | ActionContext) -> Iterator[nn.Parameter]:
    return (parameter for group in context.optimizer.param_groups for parameter in group["params"])


def gradients(context: SignalContext | ActionContext) -> list[Tensor]:
    found = [parameter.grad for parameter in parameters(context) if parameter.grad is not None]
    return [gradient.coalesce().values() if gradient.is_sparse else gradient for gradient in found]


# What conforms


def largest_gradient(context: SignalContext) -> Tensor | None:
    found = [gradient.abs().amax().float() for gradient in gradients(context)]
    return torch.stack(found).amax() if found else None


def decay(context: SignalContext) -> float:
    return max(group.get("weight_decay", 0.0) for group in context.optimizer.param_groups)


def buffers(context: SignalContext) -> Tensor | None:
    found = [buffer.float().norm() for buffer in context.model.buffers()]
    return torch.stack(found).norm() if found else None


def set_decay(context: ActionContext) -> None:
    for group in context.optimizer.param_groups:
        if group.get("weight_decay"):
            group["weight_decay"] = context.amount


@torch.no_grad()
def shrink_weights(context: ActionContext) -> None:
    for parameter in parameters(context):
        parameter.mul_(1 - 0.1 * context.amount)


@torch.no_grad()
def clean_gradients(context: ActionContext) -> None:
    for parameter in parameters(context):
        gradient = parameter.grad
        if gradient is not None:
            values = gradient._values() if gradient.is_sparse else gradient
            values.nan_to_num_(0.0, 0.0, 0.0)


def drop_gradients(context: ActionContext) -> None:
    for parameter in parameters(context):
        parameter.grad = None


def forget_moments(context: ActionContext) -> None:
    for parameter in parameters(context):
        context.optimizer.state.pop(parameter, None)


@torch.no_grad()
def shake(context: ActionContext) -> None:
    own = torch.Generator().manual_seed(context.tick)
    for parameter in parameters(context):
        parameter.add_(1e-3 * torch.randn(parameter.shape, generator=own).to(parameter.dtype))


SIGNAL = SignalPlugin("largest_gradient", "norm", "optimizer", "the largest entry of a gradient", largest_gradient)
ACTION = ActionPlugin("shrink_weights", "ratio", shrink_weights, "shortens all weights")
FUNCTION = FunctionPlugin("squash", "ratio", lambda x: x / (1 + abs(x)), "squeezes any number into (-1, 1)")
GOOD = (
    SIGNAL,
    evolve(SIGNAL, name="decay_now", measure=decay),
    evolve(SIGNAL, name="buffer_norm", need="model", measure=buffers),
    evolve(SIGNAL, name="silent", measure=lambda _: None),
    ACTION,
    evolve(ACTION, name="set_decay", apply=set_decay),
    evolve(ACTION, name="clean_gradients", amount_unit=None, apply=clean_gradients),
    evolve(ACTION, name="drop_gradients", amount_unit=None, apply=drop_gradients),
    evolve(ACTION, name="forget_moments", amount_unit=None, apply=forget_moments),
    evolve(ACTION, name="shake", amount_unit=None, apply=shake),
    FUNCTION,
    evolve(FUNCTION, name="log_or_nothing", unit=None, evaluate=lambda x: math.log(x) if x > 0 else math.nan),
    evolve(FUNCTION, name="numpy_tanh", evaluate=np.tanh),
)

# What does not

kept: list[object] = []
calls = {"number": 0}


def nowhere(_: object) -> float:
    raise LookupError("no luck")


def count(_: object) -> float:
    calls["number"] += 1
    return float(calls["number"])


def keep(context: object) -> float:
    kept.append(context)
    return 1.0


def doing(change: Callable[[SignalContext], object]) -> Callable[[SignalContext], object]:
    """Return a signal that changes something on its way."""

    def measure(context: SignalContext) -> object:
        change(context)
        return 1.0

    return measure


def add_state(context: SignalContext | ActionContext) -> None:
    for parameter in parameters(context):
        context.optimizer.state[parameter]["seen"] = calls["number"]


def remember(context: ActionContext) -> None:
    state = context.optimizer.state[next(parameters(context))]
    state["past"] = [*state.get("past", []), 1.0]


def options(context: SignalContext | ActionContext) -> dict[str, object]:
    found: dict[str, object] = context.optimizer.param_groups[0]
    return found


def set_lr(context: SignalContext | ActionContext) -> None:
    rate = options(context)["lr"]
    if isinstance(rate, Tensor):
        rate.mul_(0.5)
    else:
        options(context)["lr"] = 0.5 * rate


def other_tensor(context: ActionContext) -> None:
    rate = options(context)["lr"]
    if isinstance(rate, Tensor):
        options(context)["lr"] = rate.clone()


def first(context: SignalContext | ActionContext) -> nn.Parameter:
    return next(parameters(context))


def replace(context: ActionContext) -> None:
    first(context).data = first(context).data.clone()


def hook(context: SignalContext | ActionContext) -> None:
    context.optimizer.register_step_post_hook(lambda *_: None)


def tensor_hook(context: ActionContext) -> None:
    first(context).register_hook(lambda gradient: gradient)


def freeze(context: SignalContext | ActionContext) -> None:
    first(context).requires_grad_(False)


def alter_gradients(context: SignalContext) -> None:
    for gradient in gradients(context):
        gradient.add_(1.0)


def backward(context: ActionContext) -> None:
    torch.autograd.backward(first(context).float().sum() * 0)


def spread(context: ActionContext) -> None:
    """Clip by a norm that is NaN where one gradient is."""
    found = gradients(context)
    norm = torch.stack([gradient.float().norm() for gradient in found]).norm() if found else 1.0
    for parameter in parameters(context):
        if parameter.grad is not None:
            parameter.grad.mul_((1.0 / (norm + 1.0)).to(parameter.grad.dtype) if found else 1.0)


@torch.no_grad()
def tire(context: ActionContext) -> None:
    calls["number"] += 1
    first(context).add_(0.01 * calls["number"])


def at_the_end(context: ActionContext) -> None:
    if context.amount == 1.0:
        nowhere(context)


def keep_plain(context: ActionContext) -> None:
    keep(context)


def always_decay(context: ActionContext) -> None:
    options(context)["weight_decay"] = 0.1


def when_positive(context: SignalContext) -> float:
    return 1.0 if any(gradient.sum() > 0 for gradient in gradients(context)) else 0.0


def norms(context: SignalContext) -> Tensor | None:
    found = [gradient.float().norm() for gradient in gradients(context)]
    return torch.stack(found) if found else None


BAD_SIGNALS = {
    "raises": evolve(SIGNAL, measure=nowhere),
    "raises on sparse gradients": (
        evolve(SIGNAL, measure=lambda c: [p.grad.view(-1) for p in parameters(c)] and 1.0),
        "raises",
    ),
    "answers with no number": evolve(SIGNAL, measure=lambda _: "seven"),
    "a vector": (evolve(SIGNAL, measure=norms), "answers with no number"),
    "a truth value": (evolve(SIGNAL, measure=lambda _: True), "answers with no number"),
    "answers differently when asked again": evolve(SIGNAL, measure=count),
    "reads back from the device": evolve(SIGNAL, measure=lambda c: first(c).detach().float().norm().item()),
    "tolist": (
        evolve(SIGNAL, measure=lambda c: first(c).detach().float().view(-1).tolist()[0]),
        "reads back from the device",
    ),
    "a branch": (evolve(SIGNAL, measure=when_positive), "reads back from the device"),
    "a mask": (evolve(SIGNAL, measure=lambda c: first(c).detach()[first(c) > 0].sum()), "reads back from the device"),
    "changes the weights": evolve(SIGNAL, measure=doing(lambda c: first(c).mul_(0.5))),
    "changes the gradients": evolve(SIGNAL, measure=doing(alter_gradients)),
    "changes the optimizer's state": evolve(SIGNAL, measure=doing(add_state)),
    "changes the learning rate": evolve(SIGNAL, measure=doing(set_lr)),
    "changes the optimizer's options": evolve(SIGNAL, measure=doing(lambda c: options(c).update(weight_decay=0.3))),
    "changes hooks": evolve(SIGNAL, measure=doing(hook)),
    "changes modes": evolve(SIGNAL, measure=doing(freeze)),
    "evaluation": (evolve(SIGNAL, need="model", measure=doing(lambda c: c.model.eval())), "changes modes"),
    "changes the random numbers of the process": evolve(SIGNAL, measure=doing(lambda _: torch.rand(1))),
    "random": (
        evolve(SIGNAL, measure=doing(lambda _: random.getrandbits(1))),
        "changes the random numbers of the process",
    ),
    "numpy": (evolve(SIGNAL, measure=doing(lambda _: np.random.rand())), "changes the random numbers of the process"),
    "keeps more with each call": evolve(SIGNAL, measure=keep),
    "a model it has not": (evolve(SIGNAL, measure=lambda c: float(c.model.training)), "raises"),
}
BAD_ACTIONS = {
    "raises": evolve(ACTION, apply=nowhere),
    "raises at one end": (evolve(ACTION, apply=at_the_end), "raises"),
    "replaces the storage of a weight": evolve(ACTION, apply=replace),
    "calls `step`": evolve(ACTION, apply=lambda c: c.optimizer.step()),
    "calls `backward`": evolve(ACTION, apply=backward),
    "changes the learning rate": evolve(ACTION, apply=set_lr),
    "another tensor": (evolve(ACTION, apply=other_tensor), "changes the structure of the groups or the model"),
    "another option": (
        evolve(ACTION, apply=lambda c: options(c).update(mine=1)),
        "changes the structure of the groups or the model",
    ),
    "leaves hooks behind or takes them off": evolve(ACTION, apply=hook),
    "a tensor's hook": (evolve(ACTION, apply=tensor_hook), "leaves hooks behind or takes them off"),
    "changes modes": evolve(ACTION, apply=freeze),
    "uses up random numbers of the process": evolve(ACTION, apply=lambda c: [torch.rand(1), None][1]),
    "makes finite numbers non-finite": evolve(ACTION, apply=spread),
    "an option that is NaN": (
        evolve(ACTION, apply=lambda c: options(c).update(weight_decay=math.nan)),
        "makes finite numbers non-finite",
    ),
    "acts differently when asked again": evolve(ACTION, apply=tire),
    "grows the optimizer's state": evolve(ACTION, apply=remember),
    "keeps more with each call": evolve(ACTION, apply=keep_plain),
    "answers": evolve(ACTION, apply=lambda _: "done"),
    "breaks the update that follows": evolve(ACTION, apply=always_decay),
}
BAD_FUNCTIONS = {
    "raises": evolve(FUNCTION, evaluate=math.log),
    "answers with no number": evolve(FUNCTION, evaluate=str),
    "nothing": (evolve(FUNCTION, evaluate=lambda _: None), "answers with no number"),
    "too large": (evolve(FUNCTION, evaluate=lambda _: 10**400), "answers with no number"),
    "answers differently when asked again": evolve(FUNCTION, evaluate=count),
    "changes something": evolve(FUNCTION, evaluate=lambda x: x + 0 * random.getrandbits(1)),
    "keeps more with each call": evolve(FUNCTION, evaluate=keep),
}
BAD_DECLARATIONS = {
    "has no meaning": evolve(FUNCTION, meaning=" "),
    "has a long meaning": evolve(FUNCTION, meaning="on and " * 20),
    "two lines": (evolve(FUNCTION, meaning="one\ntwo"), "has a long meaning"),
    "has a name that is no name": evolve(FUNCTION, name="2nd"),
    "a dash": (evolve(ACTION, name="set-decay", apply=lambda _: None), "has a name that is no name"),
    "has a reserved name": evolve(FUNCTION, name="when"),
    "a reserved signal": (evolve(SIGNAL, name="level"), "has a reserved name"),
    "a reserved action": (evolve(ACTION, name="each", apply=lambda _: None), "has a reserved name"),
    "cannot be used by a policy": evolve(FUNCTION, name="median"),
    "an unknown unit": (evolve(SIGNAL, unit="parsec"), "cannot be used by a policy"),
    "an unknown need": (evolve(SIGNAL, need="luck"), "cannot be used by a policy"),
    "what cannot be called": (evolve(ACTION, apply=None), "cannot be used by a policy"),
    "declares what is no text": evolve(FUNCTION, unit=["ratio"]),
}
