"""Layers: the optimizer's parameters under the names of the modules that own them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from attrs import frozen
from torch import nn
from torch.optim import Optimizer

from lbw_policy.errors import AttachError

_ROOT = "root"


@frozen(eq=False)
class Layers:
    """The parameters an optimizer owns, grouped by the module that directly holds them.

    A layer is named by its module's dotted path (`root` for the model itself). A parameter that
    no module of the model holds is a layer of its own, `group0.3` for the fourth of the first group.
    `tied` names the layers that share a parameter with another module: they must never be frozen
    by one name. `modules` are the layers whose forward outputs can be sampled, `model` is the whole.
    """

    parameters: Mapping[str, tuple[nn.Parameter, ...]]
    tied: frozenset[str]
    modules: Mapping[str, nn.Module]
    model: nn.Module | None = None

    @classmethod
    def of(cls, optimizer: Optimizer, model: nn.Module | None = None) -> Layers:
        """Group the optimizer's parameters; `AttachError` if the model holds none of them."""
        numbered = dict(_numbered(optimizer))
        wanted = {id(parameter) for parameter in numbered.values()}
        modules = {} if model is None else dict(_owners(model, wanted))
        if model is not None and not modules:
            raise AttachError("expected a model that holds the optimizer's parameters, found one that holds none")
        owned = {name: _held(module, wanted) for name, module in modules.items()}
        known = {id(parameter) for held in owned.values() for parameter in held}
        for name, parameter in numbered.items():
            if id(parameter) not in known:
                owned[name] = (*owned.get(name, ()), parameter)
        return cls(owned, _tied(owned), modules, model)

    def distinct(self) -> tuple[nn.Parameter, ...]:
        """Return every parameter once, in the order of the layers."""
        return tuple({id(p): p for held in self.parameters.values() for p in held}.values())


def _numbered(optimizer: Optimizer) -> Iterator[tuple[str, nn.Parameter]]:
    for number, group in enumerate(optimizer.param_groups):
        for place, parameter in enumerate(group["params"]):
            yield f"group{number}.{place}", parameter


def _owners(model: nn.Module, wanted: set[int]) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        if _held(module, wanted):
            yield name or _ROOT, module


def _held(module: nn.Module, wanted: set[int]) -> tuple[nn.Parameter, ...]:
    return tuple(parameter for parameter in module.parameters(recurse=False) if id(parameter) in wanted)


def _tied(owned: Mapping[str, tuple[nn.Parameter, ...]]) -> frozenset[str]:
    owners = Counter(id(parameter) for held in owned.values() for parameter in held)
    return frozenset(name for name, held in owned.items() if any(owners[id(parameter)] > 1 for parameter in held))
