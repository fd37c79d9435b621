"""The contract of actions: they act on gradients, weights, options and state, and leave the run fit to go on."""

from __future__ import annotations

import torch

from lbw_policy.conformance.findings import Findings, raised
from lbw_policy.conformance.growth import check_growth
from lbw_policy.conformance.pictures import Picture, changes, went_bad
from lbw_policy.conformance.watching import loop_calls
from lbw_policy.conformance.worlds import Setting, World, build, differentiate, settings
from lbw_policy.semantics.plugins import ActionContext, ActionPlugin

Amounts = tuple[float, float]
Where = tuple[str, Findings]
USUAL: dict[str, Amounts] = {"steps": (0.0, 10.0)}
UNIT_RANGE: Amounts = (0.0, 1.0)
"""Amounts to check with where the author gives none, by unit; [0, 1] for the others."""
_FORBIDDEN = {
    "lr": ("changes the learning rate", "it belongs to the loop and its scheduler, and `scale_lr` bounds it"),
    "structure": ("changes the structure of the groups or the model", "groups, their keys and types, and parameters "
                  "stay what they are"),
    "storages": ("replaces the storage of a weight", "write into it in place: the compiled model, views and other "
                 "ranks hold the old one"),
    "hooks": ("leaves hooks behind or takes them off", "what is called around an update is the loop's to say"),
    "modes": ("changes modes", "nothing sets them back"),
    "random": ("uses up random numbers of the process", "use a generator of your own, seeded with `context.tick`"),
}  # fmt: skip
_COMPARED = ("weights", "gradients", "state", "options")


def check_acting(plugin: ActionPlugin, amounts: Amounts | None, findings: Findings) -> None:
    """Find what an action does that its contract forbids, in every setting and at both ends of its amounts."""
    for setting in settings():
        for amount in _ends(plugin, amounts):
            where = f"{setting}" if amount is None else f"{setting}, amount {amount:g}"
            _check_once(plugin, setting, amount, (where, findings))
    if not findings.all():
        _check_often(plugin, _ends(plugin, amounts)[-1], findings)


def _ends(plugin: ActionPlugin, amounts: Amounts | None) -> tuple[float | None, ...]:
    if plugin.amount_unit is None:
        return (None,)
    return amounts or USUAL.get(plugin.amount_unit, UNIT_RANGE)


def _check_once(plugin: ActionPlugin, setting: Setting, amount: float | None, found: Where) -> None:
    where, findings = found
    world, twin = build(setting), build(setting)
    before = Picture.of(world)
    if not _apply(plugin, world, amount, found):
        return
    after = Picture.of(world)
    for part, place in changes(before, after, _FORBIDDEN):
        what, why = _FORBIDDEN[part]
        findings.add(what, f"with {where}: {place} is not as it was; {why}")
    for part in ("weights", "gradients", "state", "options"):
        bad = went_bad(getattr(before, part), getattr(after, part))
        if bad:
            findings.add("makes finite numbers non-finite", f"with {where}: {bad} has numbers that are not finite "
                         "where they were")  # fmt: skip
    _apply(plugin, twin, amount, found)
    for _, place in changes(after, Picture.of(twin), _COMPARED):
        findings.add("acts differently when asked again", f"with {where}: {place} came out another way, from the same "
                     "state with the same amount")  # fmt: skip
    _check_update(world, where, findings)


def _apply(plugin: ActionPlugin, world: World, amount: float | None, found: Where) -> bool:
    """Act as a guard does, and tell whether that worked."""
    where, findings = found
    try:
        with torch.enable_grad(), loop_calls(world) as seen:
            answer: object = plugin.apply(ActionContext(world.optimizer, world.model, amount, 7))  # type: ignore[func-returns-value]  # looked at because it should be None
    except (Exception, SystemExit) as error:
        findings.add("raises", f"with {where}: {raised(error)}")
        return False
    for name in dict.fromkeys(seen):
        findings.add(f"calls `{name}`", f"with {where}: updates and gradients are the loop's")
    if answer is not None:
        findings.add("answers", f"with {where}: expected None, found a `{type(answer).__name__}`")
    return True


def _check_update(world: World, where: str, findings: Findings) -> None:
    try:
        world.optimizer.step()
    except Exception as error:
        findings.add("breaks the update that follows", f"with {where}: {raised(error)}")


def _check_often(plugin: ActionPlugin, amount: float | None, findings: Findings) -> None:
    world = build(Setting("an MLP with batch norm", "AdamW", 2, "ordinary"))

    def act(tick: int) -> None:
        if tick % 50 == 0:
            with torch.random.fork_rng(devices=[]):
                differentiate(world)
        plugin.apply(ActionContext(world.optimizer, world.model, amount, tick))

    try:
        check_growth(act, findings, world)
    except Exception as error:
        findings.add("raises", f"when it acts again and again: {raised(error)}")
