"""Signals taken over one group of layers: what they are taken over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from attrs import frozen
from torch import nn

from lbw_policy.semantics.signals import group_of, source_of
from lbw_policy.telemetry.layers import Layers


@frozen
class Scope:
    """What one key stands for: names of layers, and numbers of parameters in `Layers.distinct()`."""

    key: str
    source: str
    layers: tuple[str, ...]
    parameters: tuple[int, ...]


class Scopes:
    """The scopes of all keys that are asked for."""

    def __init__(self, layers: Layers, keys: Iterable[str], groups: Mapping[str, frozenset[str]]) -> None:
        self._layers = layers
        self._groups = groups
        numbers = {id(parameter): place for place, parameter in enumerate(layers.distinct())}
        self.members = {name: [numbers[id(p)] for p in held] for name, held in layers.parameters.items()}
        """The numbers of each layer's parameters; one that is tied belongs to every layer that holds it."""
        self.count = len(numbers)
        """How many parameters there are."""
        self._scopes = tuple(self._scope(key) for key in keys)

    def of(self, sources: Iterable[str]) -> tuple[Scope, ...]:
        """Return the scopes of the given sources."""
        wanted = frozenset(sources)
        return tuple(scope for scope in self._scopes if scope.source in wanted)

    def divided(self, sources: Iterable[str]) -> bool:
        """Tell whether any of the sources is asked for over a group."""
        return any(group_of(scope.key) for scope in self.of(sources))

    def matching(self, scope: Scope, modules: Mapping[str, nn.Module]) -> tuple[str, ...]:
        """Return the modules that lie in a scope: layers of it, or what holds one of its layers."""
        if not group_of(scope.key):
            return tuple(modules)
        return inside(scope.layers, modules)

    def _scope(self, key: str) -> Scope:
        group = group_of(key)
        names = tuple(name for name in self.members if not group or name in self._groups[group])
        return Scope(key, source_of(key), names, tuple(dict.fromkeys(self._numbers(names))))

    def _numbers(self, names: Iterable[str]) -> Iterator[int]:
        for name in names:
            yield from self.members[name]


def inside(layers: Iterable[str], modules: Iterable[str]) -> tuple[str, ...]:
    """Return the modules that are one of the layers, or hold one."""
    layers = tuple(layers)
    return tuple(name for name in modules if any(_within(layer, name) for layer in layers))


def _within(layer: str, module: str) -> bool:
    return layer == module or layer.startswith(f"{module}.")
