"""Whether a policy stays within the one it extends: a child may only tighten what its parent allows."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import fields, frozen

from lbw_policy.diagnostics import Span
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.report import Report, plain
from lbw_policy.syntax import nodes

Limit = p.ScaleLimit | p.SkipLimit | p.RollbackLimit | p.FreezeLimit | p.CustomLimit | p.Budget


@frozen
class Loosening:
    """Something a child may do and its parent may not; `allowed` is None where the parent does not allow it at all."""

    name: str
    asked: str
    allowed: str | None


def implies(child: p.Budget, parent: p.Budget) -> bool:
    """Tell whether whatever keeps the child's budget keeps the parent's too."""
    return _most_in(child, parent.window) <= parent.count


def _most_in(budget: p.Budget, window: int) -> int:
    """Return the most a budget allows in a window: that is covered by so many of its own, each of which may be full."""
    return budget.count * -(-window // budget.window)


def loosenings(child: p.Limits, parent: p.Limits) -> tuple[Loosening, ...]:
    """Return all that the child's limits allow beyond the parent's; none makes a partial order."""
    names = [attribute.name for attribute in fields(p.Limits) if attribute.name not in _SPECIAL]
    found = [*_clip(child, parent), *_intervene(child, parent), *_overhead(child, parent)]
    for name in names:
        found += _limit(name, getattr(child, name), getattr(parent, name))
    kept = {limit.name: limit for limit in parent.custom}
    for limit in child.custom:
        found += _limit(limit.name, limit, kept.get(limit.name))
    if child.halt and not parent.halt:
        found.append(Loosening("halt", "", None))
    return tuple(found)


_SPECIAL = frozenset({"clip", "intervene", "overhead", "halt", "custom"})


def _limit(name: str, child: Limit | None, parent: Limit | None) -> Iterator[Loosening]:
    """Compare two limits; an action without one is not allowed at all."""
    if child is None:
        return
    if parent is None:
        yield Loosening(name, "", None)
        return
    for asked, allowed, kept in _numbers(child, parent):
        if not kept:
            yield Loosening(name, asked, allowed)


def _clip(child: p.Limits, parent: p.Limits) -> Iterator[Loosening]:
    """`clip` is allowed by its own limit, or by that of all interventions together."""
    if child.clip is None and child.intervene is None:
        return
    if parent.clip is None and parent.intervene is None:
        yield Loosening("clip" if child.clip else "intervene", "", None)
    elif parent.clip is not None:
        yield from _budget("clip", child.clip, parent.clip)


def _intervene(child: p.Limits, parent: p.Limits) -> Iterator[Loosening]:
    """No limit of all interventions together leaves their number open."""
    if parent.intervene is not None:
        yield from _budget("intervene", child.intervene, parent.intervene)


def _overhead(child: p.Limits, parent: p.Limits) -> Iterator[Loosening]:
    """No limit of the overhead leaves it open."""
    if parent.overhead is not None and (child.overhead is None or child.overhead > parent.overhead):
        asked = "no limit" if child.overhead is None else f"{100 * child.overhead:.6g}%"
        yield Loosening("overhead", asked, f"at most {100 * parent.overhead:.6g}%")


def _budget(name: str, child: p.Budget | None, parent: p.Budget) -> Iterator[Loosening]:
    if child is None or not implies(child, parent):
        yield Loosening(name, _asked(child, parent) if child else "no limit", f"at most {_rate(parent)}")


def _numbers(child: Limit, parent: Limit) -> Iterator[tuple[str, str, bool]]:
    """Yield what the child asks for, what the parent allows, and whether the one is within the other."""
    match child, parent:
        case p.Budget(), p.Budget():
            yield _asked(child, parent), f"at most {_rate(parent)}", implies(child, parent)
        case p.ScaleLimit(), p.ScaleLimit():
            yield from _range(child, parent, "an lr factor")
        case p.SkipLimit(), p.SkipLimit():
            yield _most(child.in_a_row, parent.in_a_row, "{} in a row")
            yield from _numbers(child.budget, parent.budget)
        case p.RollbackLimit(), p.RollbackLimit():
            yield _most(child.distance, parent.distance, "{} steps back")
            yield from _numbers(child.budget, parent.budget)
            apart = _apart(child)
            asked = f"{_counted(apart)} apart" if apart > 1 else "none"
            yield asked, f"at least {_counted(parent.spacing)} apart", apart >= parent.spacing
        case p.FreezeLimit(), p.FreezeLimit():
            yield (
                f"{100 * child.share:.6g}%",
                f"at most {100 * parent.share:.6g}% of layers",
                child.share <= parent.share,
            )
            yield _most(child.duration, parent.duration, "{} steps")
        case p.CustomLimit(), p.CustomLimit():
            yield from _range(child, parent, "an amount")
            yield from _numbers(child.budget, parent.budget)


def _range(
    child: p.ScaleLimit | p.CustomLimit, parent: p.ScaleLimit | p.CustomLimit, what: str
) -> Iterator[tuple[str, str, bool]]:
    if child.low is not None and parent.low is not None:
        yield f"{what} of {child.low:.6g}", f"at least {parent.low:.6g}", child.low >= parent.low
    if child.high is not None and parent.high is not None:
        yield f"{what} of {child.high:.6g}", f"at most {parent.high:.6g}", child.high <= parent.high


def _most(child: float, parent: float, form: str) -> tuple[str, str, bool]:
    return form.format(plain(child)), f"at most {form.format(plain(parent))}", child <= parent


def _apart(limit: p.RollbackLimit) -> int:
    """Return the least ticks between two rollbacks; a budget of one is a distance too."""
    return max(limit.spacing, limit.budget.window if limit.budget.count == 1 else 1)


def _counted(count: int) -> str:
    return f"{plain(count)} step{'s' * (count != 1)}"


def _asked(child: p.Budget, parent: p.Budget) -> str:
    if child.window >= parent.window:
        return _rate(child)
    return f"{_rate(child)}, which is up to {_most_in(child, parent.window):_} per {parent.window:_} steps"


def _rate(budget: p.Budget) -> str:
    return f"{budget.count:_} per {budget.window:_} steps"


# In a policy


def check_tightened(report: Report, child: p.Policy, parent: p.Policy, places: dict[str, Span], extends: Span) -> None:
    """Report each limit and setting of a policy that is looser than its parent's.

    `places` has where the child writes them; what it does not write itself is reported at `extends`.
    """
    for found in (*loosenings(child.limits, parent.limits), *_settings(child, parent)):
        name = found.name.replace("_", " ") if found.name == "on_failure" else found.name
        if found.allowed is None:
            message = f"`{name}` is not allowed by `{parent.name}`, which this policy extends"
            report.error("LBW608", message, places.get(found.name, extends), _ADVICE)
        else:
            message = f"`{name}` may only be tightened: the parent allows {found.allowed}, found {found.asked}"
            report.error("LBW607", message, places.get(found.name, extends), _ADVICE)


_ADVICE = "a policy that extends another may only tighten its limits"


def _settings(child: p.Policy, parent: p.Policy) -> Iterator[Loosening]:
    asked, allowed, kept = _most(child.quarantine, parent.quarantine, "{} steps")
    if not kept:
        yield Loosening("quarantine", asked, allowed)
    if (child.on_failure, parent.on_failure) == ("continue", "halt"):
        yield Loosening("on_failure", "`continue`", "only `halt`")


def places_of(statements: tuple[nodes.Statement, ...], begin: int, end: int) -> dict[str, Span]:
    """Return where limits and settings are written between two offsets, by name."""
    found: dict[str, Span] = {}
    for node in statements:
        if isinstance(node, nodes.Limits):
            found |= {entry.name: entry.span for entry in node.entries}
        elif isinstance(node, nodes.Policy):
            found |= {clause.name: clause.span for clause in node.clauses}
    return {name: span for name, span in found.items() if begin <= span.start <= end}
