"""The contract of signals: they look at a run, change nothing, remember nothing, and never wait for the device."""

from __future__ import annotations

import torch
from torch import Tensor

from lbw_policy.conformance.findings import Findings, raised
from lbw_policy.conformance.growth import check_growth
from lbw_policy.conformance.pictures import Picture, changes, same
from lbw_policy.conformance.watching import read_backs
from lbw_policy.conformance.worlds import Setting, World, build, settings
from lbw_policy.semantics.plugins import SignalContext, SignalPlugin
from lbw_policy.telemetry.told import number

_TICKS = (0, 1_000)
_WORDS = {
    "weights": "the weights",
    "gradients": "the gradients",
    "state": "the optimizer's state",
    "lr": "the learning rate",
    "options": "the optimizer's options",
    "structure": "the structure of the groups or the model",
    "storages": "the storages of the weights",
    "hooks": "hooks",
    "modes": "modes",
    "random": "the random numbers of the process",
}
_FAILED = object()


def check_measuring(plugin: SignalPlugin, findings: Findings) -> None:
    """Find what a signal does that its contract forbids, in every setting."""
    for setting in settings():
        world, twin = build(setting), build(setting)
        for tick in _TICKS:
            first = _watched(plugin, world, tick, f"{setting}, tick {tick}", findings)
            for other in (world, twin):
                _compare(first, _ask(plugin, other, tick, [])[0], f"{setting}, tick {tick}", findings)
    if not findings.all():
        world = build(Setting("an MLP with batch norm", "AdamW", 2, "ordinary"))
        check_growth(lambda tick: _ask(plugin, world, tick, []), findings, world)


def _context(plugin: SignalPlugin, world: World, tick: int) -> SignalContext:
    """Return what `attach` may give: without a model where none is needed."""
    return SignalContext(world.optimizer, world.model if plugin.need == "model" or tick % 2 else None, tick)


def _ask(plugin: SignalPlugin, world: World, tick: int, seen: list[str]) -> tuple[object, str]:
    try:
        with torch.no_grad(), read_backs() as read:
            found: object = plugin.measure(_context(plugin, world, tick))
    except (Exception, SystemExit) as error:
        return _FAILED, raised(error)
    seen += read
    return found.detach().clone() if isinstance(found, Tensor) else found, ""


def _watched(plugin: SignalPlugin, world: World, tick: int, where: str, findings: Findings) -> object:
    before, seen = Picture.of(world), list[str]()
    found, error = _ask(plugin, world, tick, seen)
    if error:
        findings.add("raises", f"with {where}: {error}; answer None where there is no reading")
    for part, place in changes(before, Picture.of(world)):
        findings.add(f"changes {_WORDS[part]}", f"with {where}: {place} is not as it was; a signal changes nothing")
    if seen:
        findings.add("reads back from the device", f"with {where}: {seen[0]}; return the tensor, it crosses with all "
                     "other readings")  # fmt: skip
    _check_answer(found, where, findings)
    return found


def _check_answer(found: object, where: str, findings: Findings) -> None:
    if found is None or found is _FAILED:
        return
    try:
        if isinstance(found, bool):
            raise TypeError("expected a number, a tensor with one real element or None, found bool")
        number("the answer", found)
    except (TypeError, ValueError) as error:
        findings.add("answers with no number", f"with {where}: {error}")


def _compare(one: object, other: object, where: str, findings: Findings) -> None:
    if one is _FAILED or other is _FAILED:
        return
    if not same(one, other):
        findings.add("answers differently when asked again", f"with {where}: {one!s:.40}, then {other!s:.40}, of the "
                     "same state; a signal has no memory")  # fmt: skip
