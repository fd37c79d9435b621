"""Signals, functions, actions and risk models that installed packages add, found through their entry points.

A package declares an entry point in the group `lbw_policy.signals`, `lbw_policy.functions`,
`lbw_policy.actions` or `lbw_policy.models`, under the name that policies use; it points at a
`SignalPlugin`, a `FunctionPlugin`, an `ActionPlugin` or a `ModelPlugin`. Nothing is looked for until a policy
uses a name that is not built in, and only what it uses is imported.
"""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from attrs import frozen

from lbw_policy.semantics import types
from lbw_policy.semantics.functions import FUNCTIONS
from lbw_policy.semantics.models import RISK_MODELS
from lbw_policy.semantics.policy import ACTION_NAMES, NO_ACTION
from lbw_policy.semantics.signals import SIGNALS, Need, SignalKind

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_UNITS: Mapping[str, types.Unit] = {**types.NAMED, "number": types.NUMBER}


@frozen
class SignalContext:
    """What a signal is measured on, before the update: its gradients are in place. `model` may be None."""

    optimizer: Any
    model: Any
    tick: int


@frozen
class ActionContext:
    """What an action acts on, before the update. `amount` lies inside the policy's limit; None if it takes none."""

    optimizer: Any
    model: Any
    amount: float | None
    tick: int


@frozen
class SignalPlugin:
    """A signal `telemetry.NAME`.

    `unit` is a unit of the language (`ratio`, `norm`, `loss`, ..., or `number`), `need` is
    `optimizer` or `model`. `measure` returns a number or a tensor with one element, which crosses
    from the device with everything else; None where there is no reading.
    """

    name: str
    unit: str
    need: str
    meaning: str
    measure: Callable[[SignalContext], Any]

    @property
    def kind(self) -> SignalKind:
        """The signal as the language knows its own."""
        return SignalKind(self.name, _UNITS[self.unit], Need(self.need), self.meaning)


@frozen
class FunctionPlugin:
    """A function `NAME(x)` of one number, without memory; `unit` None keeps the argument's unit.

    It is called with finite numbers only. What raises, or returns anything else, is NaN: unknown.
    """

    name: str
    unit: str | None
    evaluate: Callable[[float], float]
    meaning: str

    def __call__(self, value: float) -> float:
        """Return the value of the function; NaN where it has none."""
        if not math.isfinite(value):
            return math.nan
        try:
            found: object = self.evaluate(value)
            return float(found) if isinstance(found, numbers.Real) else math.nan
        except Exception:
            return math.nan


@frozen
class ActionPlugin:
    """An action `do NAME`, or `do NAME with x` where `amount_unit` is not None.

    It needs a line in `limits`, and is called with amounts inside that range only, no more often
    than the line and `intervene` allow.
    """

    name: str
    amount_unit: str | None
    apply: Callable[[ActionContext], None]
    meaning: str


@frozen
class ModelPlugin:
    """A risk model `model NAME`.

    `make` takes the seed of its random choices and returns an object with the methods of
    `lbw_policy.risk.Model`; see `docs/plugins.md`.
    """

    name: str
    make: Callable[[int], Any]
    meaning: str


Plugin = SignalPlugin | FunctionPlugin | ActionPlugin | ModelPlugin
T = TypeVar("T", SignalPlugin, FunctionPlugin, ActionPlugin, ModelPlugin)
GROUPS: Mapping[type, str] = {
    SignalPlugin: "lbw_policy.signals",
    FunctionPlugin: "lbw_policy.functions",
    ActionPlugin: "lbw_policy.actions",
    ModelPlugin: "lbw_policy.models",
}


@frozen
class Broken:
    """A plugin that cannot be used: its entry point, and why."""

    entry: str
    reason: str


def names(kind: type[Plugin]) -> tuple[str, ...]:
    """Return the names that installed packages give to plugins of a kind; imports none of them."""
    return tuple(sorted(_entries(GROUPS[kind])))


@functools.cache
def _entries(group: str) -> dict[str, tuple[EntryPoint, ...]]:
    from importlib.metadata import entry_points  # most policies use no plugin

    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in sorted(entry_points(group=group), key=lambda entry: (entry.name, entry.value)):
        found[entry.name] = (*found.get(entry.name, ()), entry)
    return found


def find(kind: type[T], name: str) -> T | Broken | None:
    """Return the plugin of a kind and name; None if no package has one, and why not if it cannot be used."""
    return cast(T | Broken | None, _find(GROUPS[kind], name))


@functools.cache
def _find(group: str, name: str) -> Plugin | Broken | None:
    found = _entries(group).get(name, ())
    if not found:
        return None
    kind = next(kind for kind, of in GROUPS.items() if of == group)
    if len({entry.value for entry in found}) > 1:
        return Broken(_spelled(found[0]), f"`{found[1].value}` is registered under the same name")
    try:
        plugin = found[0].load()
    except (Exception, SystemExit) as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return Broken(_spelled(found[0]), f"it cannot be imported: {text:.200}")
    reason = fault(kind, name, plugin)
    return Broken(_spelled(found[0]), reason) if reason else cast(Plugin, plugin)


def forget() -> None:
    """Look for plugins anew: an editor's server outlives what is installed."""
    _entries.cache_clear()
    _find.cache_clear()


def usable(kind: type[T], name: str) -> T | None:
    """Return the plugin of a kind and name, None where there is none that can be used."""
    found = find(kind, name)
    return found if isinstance(found, kind) else None


def unit_of(name: str) -> types.Unit:
    """Return the unit a plugin names."""
    return _UNITS[name]


def signal_kind(source: str) -> SignalKind | None:
    """Return what is known of a signal, built in or a plugin's."""
    plugin = None if source in SIGNALS else usable(SignalPlugin, source)
    return plugin.kind if plugin else SIGNALS.get(source)


def _spelled(entry: EntryPoint) -> str:
    package = entry.dist.name if entry.dist else "an unknown package"
    return f"{entry.name} = {entry.value}` of `{package}"


def fault(kind: type, name: str, plugin: object) -> str | None:
    """Return what is wrong with an object that stands for the plugin of a kind and name, or None."""
    if not isinstance(plugin, Plugin) or not isinstance(plugin, kind):
        return f"expected a `{kind.__name__}`, found a `{type(plugin).__name__}`"
    if plugin.name in _TAKEN[kind]:
        return f"`{plugin.name}` is built in"
    if plugin.name != name:
        return f"the plugin calls itself `{plugin.name!s:.40}`"
    unit = {SignalPlugin: "unit", FunctionPlugin: "unit", ActionPlugin: "amount_unit"}.get(kind, "")
    if unit and (found := getattr(plugin, unit)) not in _UNITS and (found is not None or kind is SignalPlugin):
        return f"unknown unit `{found!s:.40}`"
    if isinstance(plugin, SignalPlugin) and plugin.need not in ("optimizer", "model"):
        return f"expected the need `optimizer` or `model`, found `{plugin.need!s:.40}`"
    works = {SignalPlugin: "measure", FunctionPlugin: "evaluate", ActionPlugin: "apply", ModelPlugin: "make"}[kind]
    return None if callable(getattr(plugin, works)) else f"`{works}` cannot be called"


_TAKEN: Mapping[type, frozenset[str]] = {
    SignalPlugin: frozenset(SIGNALS),
    FunctionPlugin: frozenset(FUNCTIONS) | {"neg"},
    ActionPlugin: frozenset(ACTION_NAMES.values()) | NO_ACTION,
    ModelPlugin: frozenset(RISK_MODELS),
}
