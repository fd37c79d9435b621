"""A policy in plain sentences, for the person who answers for the guard."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import fields, frozen

from lbw_policy.reading import authority
from lbw_policy.reading.acts import instead, sentence, told
from lbw_policy.reading.guarantees import Guarantees, guarantees
from lbw_policy.reading.phrases import condition, number, when
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.expressions import (
    BASELINES,
    Arithmetic,
    Condition,
    Constant,
    Expression,
    Function,
    Reading,
    Statistic,
)
from lbw_policy.semantics.functions import FUNCTIONS
from lbw_policy.semantics.signals import OWN, SIGNALS
from lbw_policy.semantics.spelling import Vocabulary, amount, share, steps
from lbw_policy.semantics.types import COUNT
from lbw_policy.semantics.walk import conditions_of, numbers_of, parts


@frozen
class Section:
    """Sentences under one title; names and numbers of the language stand in backticks."""

    title: str
    sentences: tuple[str, ...]


@frozen
class Explanation:
    """A policy explained: sections in the order in which the guard works, and the bounds as numbers."""

    name: str
    digest: str
    sections: tuple[Section, ...]
    bounds: Guarantees


def explain(policy: p.Policy) -> Explanation:
    """Return a policy in plain sentences."""
    words, bounds = Vocabulary.of(policy), guarantees(policy)
    found = {
        "In short": _short(policy),
        "What it watches": [*_signals(policy), *_lets(policy, words)],
        "What can be set": [_param(param) for param in policy.params],
        "What it predicts": [line for risk in policy.risks for line in _risk(risk, words)],
        "Before each update": list(_reflexes(policy, words)),
        "How it escalates": list(_levels(policy, words)),
        "Whom it tells": [_alert(alert, words) for alert in policy.alerts],
        "What it can never exceed": authority.limits(policy, bounds),
        "When things go wrong": [*_failure(policy), *_left_out(policy)],
    }
    sections = tuple(Section(title, tuple(lines)) for title, lines in found.items() if lines)
    return Explanation(policy.name, policy.digest, sections, bounds)


def _short(policy: p.Policy) -> Iterator[str]:
    if policy.doc:
        yield quoted(policy.doc)
    counts = [(len(policy.reflexes), "reflex", "reflexes"), (len(policy.alerts), "alert", "alerts")]
    parts_ = [f"{count} {one if count == 1 else many}" for count, one, many in counts]
    above = [f"`{level.name}`" for level in policy.levels[1:]]
    parts_.append(f"{len(above)} level{'s' * (len(above) != 1)} above `{policy.levels[0].name}`")
    yield f"It has {sentence(parts_)}."
    if not any((policy.reflexes, policy.levels[1:])):
        yield "It changes nothing in the run."


# What it watches


def _signals(policy: p.Policy) -> Iterator[str]:
    for signal in policy.signals:
        yield f"`{signal.name}` is {_meaning(signal)}.{_sampling(signal)}{_absence(signal.missing)}"
    if any(signal.missing.kind == "skip" for signal in policy.signals):
        yield "Where a reading is missing, rules that read it wait, unless said otherwise."
    if policy.signals:
        yield "A reading that is NaN or infinite counts as alarming: it can fire a rule, and never calms one."


def _meaning(signal: p.Signal) -> str:
    kind = SIGNALS.get(signal.source) or OWN.get(signal.source)
    if signal.observed or kind is None:
        return f"the run's own number, from `guard.observe({signal.source}=...)`"
    count = "number of " if kind.unit == COUNT else ""
    meaning = kind.meaning if kind.meaning.startswith("the ") else f"the {count}{kind.meaning}"
    return f"{meaning}, taken over the group `{signal.group}`" if signal.group else meaning


def _sampling(signal: p.Signal) -> str:
    return f" It is read every {steps(signal.every)}." if signal.every > 1 else ""


def _absence(missing: p.Missing) -> str:
    match missing.kind:
        case "hold":
            return (
                f" Where it is missing, its last value stands for {steps(missing.steps)}; then it counts as alarming."
            )
        case "unsafe":
            return " Where it is missing, that counts as alarming."
        case _:
            return ""


def _lets(policy: p.Policy, words: Vocabulary) -> Iterator[str]:
    for expression, name in words.names.items():
        apart = words.without(expression)
        if isinstance(expression, Constant | Reading | Arithmetic | Function | Statistic):
            yield f"`{name}` is {number(expression, apart)}."
        else:
            yield f"`{name}` holds when {condition(_truth(expression), apart)}."
    used = _functions(policy, tuple(words.names))
    yield from (f"{_TECHNICAL[name]}: {FUNCTIONS[name].meaning}." for name in used if name in _TECHNICAL)
    if set(used) & set(BASELINES):
        yield "Medians and other baselines are of earlier steps that it accepted; the present step is not among them."


_TECHNICAL = {
    "zscore": '"Robust deviations" means',
    "ewma": '"Smoothed" means',
    "slope": '"Slope" means',
    "spread": '"Range relative to the median" means',
}
"""Functions whose phrase alone does not tell how they are computed."""


def _truth(expression: Expression) -> Condition:
    assert not isinstance(expression, Constant | Reading | Arithmetic | Function | Statistic)
    return expression


def _functions(policy: p.Policy, lets: tuple[Expression, ...]) -> list[str]:
    found = {
        part.name for part in parts(*lets, *conditions_of(policy), *numbers_of(policy)) if isinstance(part, Statistic)
    }
    return sorted(found & set(FUNCTIONS))


def _param(param: p.Param) -> str:
    low, high, value = (amount(bound) for bound in (param.low, param.high, param.value))
    return f"`{param.name}` is {value} here; it can be set from {low} to {high} when the policy is loaded."


def _risk(risk: p.Risk, words: Vocabulary) -> Iterator[str]:
    name = f"`{risk.name}`"
    yield f"{name} is the probability that the run diverges within the next {steps(risk.horizon)}."
    own = [number(feature, words) for _, feature in risk.features]
    yield f"The model `{risk.model}` learns it from {sentence([*(['the standard features'] * risk.standard), *own])}."
    yield f"Its alarm may be false at most {amount(round(risk.alarm * 1_000, 9))} times in 1_000 steps."
    yield f"It is not believed in the first {steps(risk.trust_after)}, nor whenever it predicts badly."
    yield f"As long as it is not believed, {name} reads {share(risk.fallback)}."


# What it does


def _reflexes(policy: p.Policy, words: Vocabulary) -> Iterator[str]:
    for reflex in policy.reflexes:
        acts = sentence([told(action, words, held=False) for action in reflex.actions]) if reflex.actions else ""
        clause = condition(reflex.condition, words)
        refused = "".join(instead(action, words, held=False) for action in reflex.actions)
        yield f"Reflex `{reflex.name}`: when {clause}, it {acts or 'does nothing'}.{refused}{_reason(reflex)}"
    if policy.reflexes:
        yield "Reflexes are asked at every step and at every level."


def _reason(rule: p.Reflex | p.Level | p.Alert) -> str:
    return f" Reason: {quoted(rule.why)}" if rule.why else ""


def _levels(policy: p.Policy, words: Vocabulary) -> Iterator[str]:
    if len(policy.levels) == 1:
        return
    names = [f"`{level.name}`" for level in policy.levels]
    yield f"The levels are, from calm to most severe: {', '.join(names)}. A run begins at {names[0]}."
    yield "At each step it moves at most once: up to the highest level whose condition holds, else down by one."
    for below, level in zip(policy.levels, policy.levels[1:], strict=False):
        yield from _level(level, below, words)
    yield "A level that it comes down to acts only when its own condition holds again."


def _level(level: p.Level, below: p.Level, words: Vocabulary) -> Iterator[str]:
    enter = f"begins when {when(level.enter, words)}" if level.enter else "is never entered"
    yield f"Level `{level.name}` {enter}.{_reason(level)}"
    for action in level.actions:
        yield f"When `{level.name}` begins, it {_done(action, words)}"
    for each in level.periodic:
        yield f"Every {steps(each.every)} at `{level.name}`, it {_done(each.action, words)}"
    if level.settles is not None:
        yield f"After {steps(level.settles)} at `{level.name}`, that is taken for a new normal: {_SETTLED}."
    ways = [when(level.leave, words)] if level.leave else []
    ways += [f"{steps(level.stay)} have passed"] if level.stay else []
    if ways:
        yield f"It comes back from `{level.name}` to `{below.name}` when {', or '.join(ways)}."
    else:
        yield f"It does not come back from `{level.name}` by itself."
    if level.cooldown:
        yield f"After that, `{level.name}` stays shut for {steps(level.cooldown)}."


_SETTLED = "its steps count as calm, and what is seen in them teaches the baselines"


def _done(action: p.Action, words: Vocabulary) -> str:
    return f"{told(action, words, held=True)}.{instead(action, words, held=True)}"


def _alert(alert: p.Alert, words: Vocabulary) -> str:
    clause = f"Alert `{alert.name}`, {alert.severity}: when {when(alert.trigger, words)}"
    return f"{clause}, it says {quoted(alert.message)}{_reason(alert)}"


def _failure(policy: p.Policy) -> Iterator[str]:
    learned = f"at most {steps(policy.quarantine)} in a row"
    yield f"What it sees in trouble does not teach its baselines, for {learned}; then it is taken for the new normal."
    if policy.on_failure == "halt":
        yield "If the guard itself fails, it stops the run."
    else:
        yield "If the guard itself fails, it undoes what it did, records that, and lets the update go on unguarded."


_TOLD = {
    *("name", "doc", "digest", "params", "signals", "risks", "reflexes", "levels", "alerts", "limits"),
    *("quarantine", "snapshot_every", "on_failure", "layers", "tests"),
}


def _left_out(policy: p.Policy) -> Iterator[str]:
    """Yield a sentence on parts of a policy that have no words here, rather than keep silent."""
    for group in policy.layers:
        globs = sentence([f"`{glob}`" for glob in group.globs])
        but = f" but not {sentence([f'`{glob}`' for glob in group.excepted])}" if group.excepted else ""
        yield f"The group `{group.name}` is the layers whose names match {globs}{but}."
    rest = [a.name for a in fields(p.Policy) if a.name not in _TOLD and a.eq and getattr(policy, a.name)]
    if rest:
        yield f"This explanation leaves out: {sentence([f'`{name}`' for name in rest])}."


def quoted(text: str) -> str:
    """Return a user's own words in quotation marks, on one line and without marks of our own."""
    line = " ".join(text.split()).replace("`", "'")
    return f'"{line}"' if line.endswith((".", "!", "?")) else f'"{line}".'
