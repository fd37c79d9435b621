"""Advice about rules: levels that cannot do their work, rules that hide or repeat others."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from attrs import evolve

from lbw_policy.semantics import expressions as e
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.implication import implies, normal, small, threshold
from lbw_policy.semantics.report import Report, plain
from lbw_policy.semantics.sites import Clauses, Pair, Site, paired
from lbw_policy.semantics.walk import chain, conditions_of, parts
from lbw_policy.syntax import nodes

_MOST_EARLIER = 32
"""How many earlier rules one rule is compared with."""


def lint_levels(report: Report, policy: p.Policy, levels: list[Clauses]) -> None:
    """Report levels that flap, cannot be left or entered as written, or do nothing."""
    for place, one in enumerate(levels):
        _no_gap(report, one)
        _leave_after_stay(report, one)
        _settles_after_stay(report, one)
        _each_after_stay(report, one)
        _leave_after_quarantine(report, policy, one)
        _rollback_too_short(report, policy, one)
        _idle(report, one)
        _passed_over(report, one.level, levels[place + 1 : place + 1 + _MOST_EARLIER], one.node)


def lint_reflexes(report: Report, policy: p.Policy, statements: tuple[nodes.Statement, ...]) -> None:
    """Report reflexes that an earlier one hides, and rules with the condition of another."""
    words = {f"{type(node).__name__.lower()} {node.name.text}": node.name
             for node in statements if isinstance(node, nodes.Reflex | nodes.Alert)}  # fmt: skip
    hidden = set(_shadowed(report, policy, words))
    seen: dict[Hashable, str] = {}
    rules = [("reflex", one.name, one.condition) for one in policy.reflexes if one.name not in hidden]
    for kind, name, key in (*rules, *(("alert", one.name, one.trigger) for one in policy.alerts)):
        if key in seen and f"{kind} {name}" in words:
            report.warning("LBW411", f"{kind} `{name}` has the condition of {seen[key]}", words[f"{kind} {name}"].span,
                           "write one rule, or change one of the conditions")  # fmt: skip
        seen.setdefault(key, f"{kind} `{name}`")


def _shadowed(report: Report, policy: p.Policy, words: dict[str, nodes.Word]) -> Iterator[str]:
    conditions = [normal(one.condition) if small(one.condition) else None for one in policy.reflexes]
    for place, one in enumerate(policy.reflexes):
        stronger = conditions[place]
        for before in range(max(0, place - _MOST_EARLIER), place):
            weaker, first = conditions[before], policy.reflexes[before]
            if stronger and weaker and _adds_nothing(one, first) and implies(stronger, weaker):
                if f"reflex {one.name}" in words:
                    message = f"reflex `{one.name}` adds nothing: `{first.name}` does the same whenever it fires"
                    report.warning("LBW410", message, words[f"reflex {one.name}"].span, "remove one of them")
                yield one.name
                break


def _adds_nothing(one: p.Reflex, first: p.Reflex) -> bool:
    once = (p.Skip, p.Halt, p.Rollback, p.Checkpoint, p.ResetMoments, p.Freeze, p.Clip)
    return all(isinstance(action, once) and _among(action, first.actions) for action in one.actions)


def _among(action: p.Action, actions: tuple[p.Action, ...]) -> bool:
    """Tell whether an action is one of several; without a fallback of its own, also one that has one."""
    return action in actions or action in (evolve(other, otherwise=None) for other in actions)


# Levels


def _no_gap(report: Report, one: Clauses) -> None:
    """Report a `leave` that may hold where `enter` does, or at the same threshold."""
    enter, leave, clause = one.level.enter, one.level.leave, one.condition("leave")
    if enter is None or leave is None or clause is None or not small(enter.condition, leave.condition):
        return
    if implies(normal(enter.condition), normal(leave.condition)):
        report.warning("LBW406", f"level `{one.level.name}` may be left as soon as it is entered",
                       clause.expression.span, "leave on the opposite of what it is entered on")  # fmt: skip
        return
    gaps = [(pair, gap) for pair in _compared("leave", clause, leave) for gap in _gaps(pair[1], enter)]
    patient = leave.count > enter.window  # then time keeps the level from flapping
    narrow = [pair for pair, gap in gaps if gap < 0 or (gap == 0 and not patient)]
    if narrow and not any(gap > 0 for _, gap in gaps):
        report.warning("LBW406", f"no gap between `enter` and `leave` of level `{one.level.name}`",
                       narrow[0][0].span, "leave well below where it is entered")  # fmt: skip


def _compared(kind: str, clause: nodes.Condition, trigger: p.Trigger) -> Iterator[Pair]:
    return (
        pair
        for pair in paired(Site(kind, clause.expression, trigger.condition))
        if isinstance(pair[1], e.Not | e.Comparison) and isinstance(normal(pair[1]), e.Comparison)
    )


def _gaps(leave: e.Expression, enter: p.Trigger) -> Iterator[float]:
    """Yield how far below each threshold of `enter` the same number's threshold of `leave` lies."""
    after = normal(leave) if isinstance(leave, e.Comparison | e.Not) else None
    for part in _atoms(normal(enter.condition)):
        if not isinstance(after, e.Comparison) or part.left != after.left or {part.op[0], after.op[0]} != {"<", ">"}:
            continue
        first, second = threshold(part), threshold(after)
        if first is not None and second is not None:
            yield first - second if part.op[0] == ">" else second - first


def _atoms(node: e.Condition) -> Iterator[e.Comparison]:
    if isinstance(node, e.Both | e.Either):
        yield from _atoms(node.left)
        yield from _atoms(node.right)
    elif isinstance(node, e.Comparison):
        yield node


def _leave_after_stay(report: Report, one: Clauses) -> None:
    leave, stay, clause = one.level.leave, one.level.stay, one.condition("leave")
    if leave and stay and clause and clause.hold and leave.count >= stay:
        message = f"`leave` needs {plain(leave.count)} steps, but the level ends after {plain(stay)}"
        report.warning("LBW414", message, clause.hold.span, "shorten the hold, or lengthen `stay`")


def _settles_after_stay(report: Report, one: Clauses) -> None:
    settles, stay, clause = one.level.settles, one.level.stay, one.found.get("settles")
    if settles and stay and clause and settles >= stay:
        message = f"never settles: it takes {plain(settles)} steps, but the level ends after {plain(stay)}"
        report.warning("LBW428", message, clause.span, "settle sooner, or lengthen `stay`")


def _each_after_stay(report: Report, one: Clauses) -> None:
    for periodic, clause in zip(one.level.periodic, one.each, strict=True):
        if one.level.stay and periodic.every >= one.level.stay:
            message = f"never repeated: the level ends after {plain(one.level.stay)} steps"
            report.warning("LBW415", message, clause.every.span, "shorten the period, or lengthen `stay`")


def _leave_after_quarantine(report: Report, policy: p.Policy, one: Clauses) -> None:
    leave, clause = one.level.leave, one.condition("leave")
    if one.level.settles is not None:  # then its author means the baselines to learn what the level looks like
        return
    if leave and clause and clause.hold and leave.count > policy.quarantine:
        message = f"the quarantine ends after {plain(policy.quarantine)} steps, before `leave` can hold"
        report.warning("LBW418", message, clause.hold.span,
                       "shorten the hold, or write a longer `quarantine at most N steps`")  # fmt: skip


def _rollback_too_short(report: Report, policy: p.Policy, one: Clauses) -> None:
    """Report a rollback that may not reach a snapshot taken before the trouble (see `SnapshotSchedule`)."""
    enter, limit = one.level.enter, policy.limits.rollback
    if enter is None or limit is None:
        return
    every = policy.snapshot_every or max(1, limit.distance // 2)
    oldest = every + max(1, min(every, limit.distance // 4))
    for node, action in _done_on_entry(one):
        if not isinstance(action, p.Rollback) or node.value is None:
            continue
        if action.at_most < oldest + enter.count:
            message = f"{plain(action.at_most)} steps may not reach a healthy snapshot: "
            message += f"it can be {plain(oldest)} steps old, and trouble is noticed after {plain(enter.count)}"
            report.warning("LBW419", message, node.value.span, "go further back, or write `snapshot every N steps`")


def _done_on_entry(one: Clauses) -> Iterator[tuple[nodes.Do, p.Action]]:
    written = (clause for clause in one.node.clauses if isinstance(clause, nodes.Do))
    for node, action in zip(written, one.level.actions, strict=True):
        yield from zip((node, *node.otherwise), chain(action), strict=True)


def _idle(report: Report, one: Clauses) -> None:
    if not one.level.actions and not one.level.periodic:
        report.warning("LBW421", f"level `{one.level.name}` does nothing", one.node.name.span,
                       "add an action, or use an `alert` if it is only to be told")  # fmt: skip


def _passed_over(report: Report, low: p.Level, higher: list[Clauses], node: nodes.Level) -> None:
    for high in (one.level for one in higher):
        if low.enter and high.enter and not high.cooldown and _no_harder(low.enter, high.enter):
            message = f"level `{low.name}` is passed over: whenever it would be entered, `{high.name}` would be too"
            report.warning("LBW409", message, node.name.span, "make the higher level harder to enter")
            return


def _no_harder(low: p.Trigger, high: p.Trigger) -> bool:
    held = high.count <= low.count and high.window >= low.window
    return held and small(low.condition, high.condition) and implies(normal(low.condition), normal(high.condition))


# Risks


def lint_risks(report: Report, policy: p.Policy, found: list[Site], statements: tuple[nodes.Statement, ...]) -> None:
    """Report risks whose model could act before it is trusted, or is trusted before it can be judged."""
    readings = (part for part in parts(*conditions_of(policy)) if isinstance(part, e.RiskReading))
    read = {part.risk for part in readings if part.field == "probability"}
    for node in (node for node in statements if isinstance(node, nodes.Risk)):
        clauses = {clause.name: clause for clause in node.clauses}
        if node.name.text in read and "fallback" not in clauses:
            report.warning("LBW412", f"risk `{node.name.text}` is compared, but has no `fallback`", node.name.span,
                           "add `fallback 0%`, which is what it reads while it is not trusted")  # fmt: skip
        risk = next(one for one in policy.risks if one.name == node.name.text)
        if risk.trust_after <= risk.horizon:
            report.warning("LBW425", f"trusted before the first prediction is {plain(risk.horizon)} steps old",
                           clauses["trust"].span, "trust it after many times its horizon")  # fmt: skip
    _fallback_acts(report, {risk.name: risk.fallback for risk in policy.risks}, found)


def _fallback_acts(report: Report, fallbacks: dict[str, float], found: list[Site]) -> None:
    """Report thresholds that an untrusted risk passes, so that it enters a level or never lets it go."""
    for site in found:
        alarming = "<" if site.kind in ("leave", "require") else ">"
        pairs = list(paired(site)) if site.kind != "let" else []
        if any(isinstance(expression, e.Not) for _, expression in pairs):
            continue  # under a `not` a threshold counts the other way round
        for node, expression in pairs:
            atom = normal(expression) if isinstance(expression, e.Comparison) else None
            if not isinstance(atom, e.Comparison) or not isinstance(atom.left, e.RiskReading):
                continue
            limit, fallback = threshold(atom), fallbacks.get(atom.left.risk, 0.0)
            if limit is None or atom.op[0] != alarming:
                continue
            if fallback > limit or (fallback == limit and atom.op in (">=", "<")):
                report.warning("LBW413", f"while `{atom.left.risk}` is not trusted it reads {100 * fallback:g}%, "
                               "which counts as alarming here", node.span, "choose a lower `fallback`")  # fmt: skip
