"""Hypothesis strategies shared by all tests; every new construct of the language is added here.

Strategies without state are cached: building a recursive one anew for each draw takes most of a test's time.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from functools import cache

from attrs import define, evolve, field
from hypothesis import strategies as st

from lbw_policy.machine.ladder import Ladder
from lbw_policy.machine.readings import RiskValues
from lbw_policy.semantics import load
from lbw_policy.semantics.expressions import (
    BASELINES,
    TRENDS,
    Arithmetic,
    Both,
    Comparison,
    Condition,
    Constant,
    Either,
    Finite,
    Function,
    Not,
    Number,
    Reading,
    RiskReading,
    Statistic,
)
from lbw_policy.semantics.policy import (
    Action,
    Budget,
    Clip,
    Custom,
    CustomLimit,
    Freeze,
    FreezeLimit,
    Halt,
    Level,
    Limits,
    Missing,
    Periodic,
    Place,
    Policy,
    Reflex,
    Rollback,
    RollbackLimit,
    ScaleLimit,
    ScaleLr,
    Signal,
    Skip,
    SkipLimit,
    Trigger,
)

HOSTILE = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    5e-324,
    -2.5e-310,
    1e-12,
    1e16,
    1e300,
    -1e300,
    sys.float_info.max,
    -sys.float_info.max,
    math.inf,
    -math.inf,
    math.nan,
)
"""Values that break careless arithmetic."""

ordinary = st.floats(-8.0, 8.0, width=32)
hostile = st.sampled_from(HOSTILE)
anything = ordinary | hostile | st.floats()
finite_floats = ordinary | hostile.filter(math.isfinite) | st.floats(allow_nan=False, allow_infinity=False)
SIGNALS = ("loss", "grad", "outliers")
RISKS = ("divergence",)


@cache
def missing_rules() -> st.SearchStrategy[Missing]:
    """Draw what an absent reading means."""
    hold = st.integers(0, 6).map(lambda steps: Missing("hold", steps))
    return st.sampled_from((Missing("skip"), Missing("unsafe"))) | hold


@cache
def declarations(names: Sequence[str] = SIGNALS) -> st.SearchStrategy[tuple[Signal, ...]]:
    """Draw declarations of the named signals."""
    return st.tuples(
        *(
            st.builds(Signal, st.just(name), st.just(name), every=st.integers(1, 4), missing=missing_rules())
            for name in names
        )
    )


@cache
def _constants() -> st.SearchStrategy[Number]:
    # A negative zero equals zero, so two expressions with them would share one window.
    return st.builds(
        Constant, st.sampled_from((0.0, 1.0, -1.0, 0.5, 2.0, 1e-3, 1e300)) | ordinary.map(lambda x: x + 0.0)
    )


def _compound(inner: st.SearchStrategy[Number]) -> st.SearchStrategy[Number]:
    samples = st.integers(1, 12) | st.sampled_from((16, 40))
    plain = st.sampled_from([name for name in (*BASELINES, *TRENDS) if name != "quantile"])
    return st.one_of(
        st.builds(Statistic, plain, inner, samples),
        st.builds(Statistic, plain, inner, samples),
        st.builds(Statistic, st.just("quantile"), inner, samples, st.floats(0.0, 1.0)),
        st.builds(Arithmetic, st.sampled_from("+-*/"), inner, inner),
        st.builds(Function, st.sampled_from(("log", "abs", "neg")), inner),
    )


@cache
def numbers(signals: Sequence[str] = SIGNALS, risks: Sequence[str] = RISKS) -> st.SearchStrategy[Number]:
    """Draw a number over the named signals and risk models; units are not looked at."""
    reading = st.builds(Reading, st.sampled_from(tuple(signals)))
    leaves = [reading, reading, _constants()]
    if risks:
        leaves.append(st.builds(RiskReading, st.sampled_from(tuple(risks)), st.just("probability")))
    return st.recursive(st.one_of(leaves), _compound, max_leaves=5)


@cache
def conditions(signals: Sequence[str] = SIGNALS, risks: Sequence[str] = RISKS) -> st.SearchStrategy[Condition]:
    """Draw a condition over the named signals and risk models."""
    number = numbers(signals, risks)
    leaves = [
        st.builds(Comparison, st.sampled_from(("<", "<=", ">", ">=", "==", "!=")), number, number),
        st.builds(Finite, number),
    ]
    if risks:
        leaves.append(st.builds(RiskReading, st.sampled_from(tuple(risks)), st.sampled_from(("alarm", "trusted"))))
    return st.recursive(
        st.one_of(leaves),
        lambda inner: st.builds(Not, inner) | st.builds(Both, inner, inner) | st.builds(Either, inner, inner),
        max_leaves=5,
    )


def risk_values() -> st.SearchStrategy[RiskValues]:
    """Draw what a risk model may say, broken ones included."""
    probability = st.none() | st.floats(0.0, 1.0) | anything
    return st.builds(RiskValues, probability, st.none() | st.booleans(), st.booleans())


def risk_readings(risks: Sequence[str] = RISKS) -> st.SearchStrategy[Mapping[str, RiskValues]]:
    """Draw what the risk models say in a tick; some may be silent."""
    return st.dictionaries(st.sampled_from(tuple(risks)), risk_values(), max_size=len(risks))


@st.composite
def streams(
    draw: st.DrawFn, signals: Sequence[str] = SIGNALS, most: int = 60
) -> list[tuple[int, dict[str, float | None]]]:
    """Draw telemetry: growing ticks, each with the values at hand; hostile values, gaps and absences are common."""
    drawn = draw(st.lists(anything, max_size=4)) + draw(st.lists(ordinary, min_size=1, max_size=8))
    value = st.sampled_from([*drawn, None] if draw(st.booleans()) else drawn)
    moments = st.fixed_dictionaries(dict.fromkeys(signals, value))
    if draw(st.booleans()):
        moments |= st.fixed_dictionaries({}, optional=dict.fromkeys(signals, value))
    count, tick = draw(st.integers(0, most)), draw(st.sampled_from((0, 1, 10**9)))
    ticks = []
    for values in draw(st.lists(moments, min_size=count, max_size=count)):
        tick += draw(st.sampled_from((1, 1, 1, 1, 1, 2, 5)))
        ticks.append((tick, values))
    return ticks


@cache
def budgets() -> st.SearchStrategy[Budget]:
    """Small budgets, so that short histories meet their ends."""
    return st.builds(Budget, st.integers(1, 6), st.integers(1, 30))


@st.composite
def limit_sets(draw: st.DrawFn) -> Limits:
    """Any subset of limits, with small numbers."""
    low = draw(st.floats(0.01, 1.0))
    return Limits(
        scale_lr=draw(st.none() | st.builds(ScaleLimit, st.just(low), st.floats(low, 1.0))),
        skip=draw(st.none() | st.builds(SkipLimit, st.integers(1, 4), budgets())),
        clip=draw(st.none() | budgets()),
        rollback=draw(st.none() | st.builds(RollbackLimit, st.integers(1, 30), budgets())),
        freeze=draw(st.none() | st.builds(FreezeLimit, st.floats(0.01, 0.9), st.integers(1, 10))),
        intervene=draw(st.none() | budgets()),
        custom=tuple(draw(st.lists(custom_limits(), max_size=2, unique_by=lambda limit: limit.name))),
    )


@st.composite
def custom_limits(draw: st.DrawFn) -> CustomLimit:
    """The limit of a plugin's action, with an amount or without."""
    low, high = sorted((draw(ordinary), draw(ordinary)))
    bounds = draw(st.sampled_from(((None, None), (low, high))))
    return CustomLimit(draw(st.sampled_from(("boost", "nudge"))), *bounds, draw(budgets()))


@cache
def triggers() -> st.SearchStrategy[Trigger]:
    """A trigger on any condition with a short hold."""
    holds = st.integers(1, 5).flatmap(lambda window: st.tuples(st.integers(1, window), st.just(window)))
    return holds.map(lambda hold: Trigger(Finite(Reading("loss")), *hold))


@st.composite
def _rungs(draw: st.DrawFn, index: int) -> Level:
    leave = draw(st.none() | triggers())
    return Level(
        name=f"level{index}",
        enter=draw(triggers()),
        leave=leave,
        stay=draw(st.integers(1, 12) if leave is None else st.none() | st.integers(1, 12)),
        cooldown=draw(st.integers(0, 8)),
    )


@st.composite
def ladders(draw: st.DrawFn) -> Ladder:
    """A ladder of up to three levels above the calm one, each with a way back."""
    count = draw(st.integers(0, 3))
    return Ladder((Level("normal"), *(draw(_rungs(index)) for index in range(count))))


@cache
def actions() -> st.SearchStrategy[Action]:
    """Any action, with amounts far beyond what limits allow among the likely ones."""
    return st.one_of(
        st.just(Skip()),
        st.just(Halt()),
        st.builds(Clip, numbers()),
        st.builds(ScaleLr, numbers(), st.integers(1, 6)),
        st.builds(Rollback, st.integers(1, 100)),
        st.builds(Freeze, st.floats(0.0, 1.0), st.just("grad_norm")),
        st.builds(Custom, st.sampled_from(("boost", "nudge", "unlimited")), st.none() | numbers()),
    )


@st.composite
def _acting(draw: st.DrawFn, level: Level) -> Level:
    return evolve(
        level,
        enter=evolve(level.enter, condition=draw(conditions())) if level.enter else None,
        leave=evolve(level.leave, condition=draw(conditions())) if level.leave else None,
        actions=tuple(draw(st.lists(actions(), max_size=3))),
        periodic=tuple(draw(st.lists(st.builds(Periodic, st.integers(1, 4), actions()), max_size=1))),
    )


@st.composite
def unchecked_policies(draw: st.DrawFn) -> Policy:
    """A policy no checker has seen: its rules may ask for anything, allowed or not."""
    place = Place("p.lbw", 1)
    rungs = draw(ladders()).levels
    reflex = st.builds(Reflex, st.just("r"), conditions(), st.lists(actions(), max_size=2).map(tuple), st.just(place))
    return Policy(
        name="p",
        doc="",
        digest="0",
        params=(),
        signals=draw(declarations()),
        risks=(),
        reflexes=tuple(draw(st.lists(reflex, max_size=3))),
        levels=(rungs[0], *(draw(_acting(level)) for level in rungs[1:])),
        alerts=(),
        limits=draw(limit_sets()),
        quarantine=draw(st.integers(1, 20)),
    )


# Whole policies, as text and checked

_WORDS_AS_NAMES = ("skip", "most", "top", "steps", "of", "by", "row", "model", "hold", "lbw", "clip", "halt", "false")
_UNITS_OF = {
    "telemetry.loss": "loss",
    "telemetry.grad_norm": "norm",
    "telemetry.param_norm": "norm",
    "telemetry.update_ratio": "ratio",
    "telemetry.activation_outliers": "ratio",
    "telemetry.lr": "rate",
    "telemetry.nonfinite_params": "count",
    "observed.router_spread": "number",
}
_LIMITS = (
    "scale_lr within [0.05, 1]",
    "skip at most 8 in a row, at most 40 per 1_000 steps",
    "clip at most 100 per 1_000 steps",
    "rollback at most 50 steps back, at most 3 per 1_000 steps",
    "freeze at most 25% of layers, for at most 200 steps",
    "reset_moments at most 1 per 1_000 steps",
    "checkpoint at most 3 per 1_000 steps",
    "intervene at most 150 per 1_000 steps",
)
_NO_EXCEPTION, _EXCEPTION = "", ' except "*.c"'
_NOTES = ("", "", '@why("drawn") ', '@why("so") @id("{}") ')


@define
class _Names:
    """What a growing policy text has declared so far."""

    draw: st.DrawFn
    taken: set[str] = field(factory=set)
    numbers: dict[str, list[str]] = field(factory=dict)
    """Names of signals by unit."""
    ratios: list[str] = field(factory=list)
    conditions: list[str] = field(factory=list)
    risks: list[str] = field(factory=list)
    windows: list[str] = field(factory=lambda: ["64 steps", "128 steps", "1_000 steps"])
    groups: list[str] = field(factory=list)

    def new(self) -> str:
        """Return a name that is not taken; now and then one that is also a word of the language."""
        odd = st.sampled_from(_WORDS_AS_NAMES) | st.from_regex(r"[A-Z_][a-z_0-9]{0,5}", fullmatch=True)
        name = self.draw(odd) if self.draw(st.integers(0, 3)) == 0 else "n"
        name = name if name not in self.taken else f"{name}_{len(self.taken)}"
        self.taken.add(name)
        return name

    def pick(self, *choices: str) -> str:
        """Return one of the choices."""
        return self.draw(st.sampled_from(choices))

    def signal(self) -> tuple[str, str]:
        """Return a signal and its unit."""
        unit = self.pick(*sorted(self.numbers))
        return self.pick(*self.numbers[unit]), unit

    def window(self) -> str:
        """Return the length of a window."""
        return self.pick(*self.windows)


def _same_unit(names: _Names, signal: str) -> str:
    """Return a number that has the unit of the signal."""
    window = names.window()
    plain = names.pick("median", "mean", "std", "min", "max", "ewma", "prev")
    return names.pick(
        signal,
        f"{plain}({signal}, {window})",
        f"{plain}(ewma({signal}, {window}), {window})",
        f"quantile({signal}, {window}, {names.pick('95%', '0.5', '0')})",
        f"prev({signal})",
        f"{names.pick('2', '0.5', '1e-3')} * {signal}",
        f"abs({signal} - {plain}({signal}, {window}))",
        f"(-{signal} + {names.pick('3', '1_000.5')})",
    )


def _ratio(names: _Names) -> str:
    """Return a number without a unit."""
    signal, _ = names.signal()
    window = names.window()
    choices = [
        f"{signal} / median({signal}, {window})",
        f"zscore({signal}, {window})",
        f"spread({signal}{names.pick('', f', {window}')})",
        f"log({signal})",
        f"slope(zscore({signal}, {window}), {window}) * {window}",
        *names.ratios,
    ]
    return names.pick(*choices)


def _condition(names: _Names, depth: int = 2) -> str:
    """Return a condition."""
    if depth and names.draw(st.booleans()):
        left, right = _condition(names, depth - 1), _condition(names, depth - 1)
        return names.pick(f"{left} and {right}", f"{left} or {right}", f"not ({left})", f"({left})")
    signal, _ = names.signal()
    compare = names.pick("<", "<=", ">", ">=", "==", "!=")
    risks = [f"{risk}{end}" for risk in names.risks for end in (".alarm", ".trusted", " > 30%", ".probability < 0.2")]
    return names.pick(
        f"{_same_unit(names, signal)} {compare} {_same_unit(names, signal)}",
        f"{_ratio(names)} {compare} {names.pick('3', '-0.5', '1_000', '150%')}",
        f"finite({signal})",
        f"not finite({_ratio(names)})",
        f"rate({names.pick('interventions', 'skips', 'rollbacks', 'clips')}, {names.window()}) > 3",
        *names.conditions,
        *risks,
    )


def _hold(names: _Names) -> str:
    return names.pick("", " for 3 of 5 steps", " for 1 step", " for 20 steps")


def _repeated(names: _Names) -> str:
    """Return an action that is done at a moment, not held."""
    return names.pick("do skip", "do scale_lr by 0.5", "do rollback at most 50 steps", "do checkpoint")


def _note(names: _Names) -> str:
    """Return notes for a statement, or none."""
    return names.pick(*_NOTES).format(f"id-{len(names.taken)}-{names.new()}")


def _action(names: _Names) -> str:
    groups = names.pick("layers", *names.groups)
    norms = [f"2.5 * median({signal}, {names.window()})" for signal in names.numbers.get("norm", ())]
    restore = names.pick("", " restore over 20 steps")
    return names.pick(
        "do skip",
        "do halt",
        f"do clip to {names.pick('1', *norms)}",
        f"do scale_lr by {names.pick('0.5', '50%', f'1 / ({_ratio(names)})')}{restore}",
        f"do rollback at most {names.pick('50 steps', '1 step')}",
        "do reset_moments",
        "do checkpoint",
        f"do freeze top {names.pick('10%', '0.25')} of {groups} by {names.pick('activation_variance', 'grad_norm')}",
    )


def _declarations(names: _Names) -> list[str]:
    lines = []
    for _ in range(names.draw(st.integers(0, 2))):
        name = names.new()
        if names.draw(st.booleans()):
            names.windows.append(name)
            lines.append(f"param {name} : steps in [32 steps, 1_000 steps] = 128 steps")
        else:
            names.ratios.append(f"2 * {name}")
            lines.append(f"param {name} : {names.pick('ratio', 'probability')} in [0, 1] = {names.pick('0.5', '50%')}")
    sources = names.draw(st.lists(st.sampled_from(sorted(_UNITS_OF)), min_size=1, max_size=4))
    for source in sources:
        name = names.new()
        names.numbers.setdefault(_UNITS_OF[source], []).append(name)
        clauses = names.pick("", " { every 2 steps }", " { missing skip }", " { every 4 steps  missing hold 20 steps }",
                             " { missing unsafe  every 1 step }", " { }")  # fmt: skip
        lines.append(f"signal {name} = {source}{clauses}")
    for _ in range(names.draw(st.integers(0, 1))):
        name = names.new()
        names.groups.append(name)
        lines.append(f'layers {name} = "*.a.*", "b"{names.pick(_NO_EXCEPTION, _EXCEPTION)}')
    return lines


def _risk(names: _Names) -> tuple[str, str]:
    name, model = names.new(), names.pick("", "model logistic", "model baseline")
    features = names.pick("standard", f"standard, {_ratio(names)}", f"{_ratio(names)}, {names.signal()[0]}")
    clauses = [f"features {features}", "horizon 10 steps", "alarm at most 0.3 false per 1_000 steps",
               "trust after 200 steps", model, names.pick("", "fallback 0%", "fallback 0.05")]  # fmt: skip
    return f"risk {name} {{ {'  '.join(names.draw(st.permutations(clauses)))} }}", name


def _levels(names: _Names) -> list[str]:
    rungs = [names.new() for _ in range(names.draw(st.integers(1, 4)))]
    lines = [f"levels {' -> '.join(rungs)}"]
    for rung in rungs[1:]:
        clauses = [f"enter when {_condition(names)}{_hold(names)}", names.pick("", "cooldown 50 steps"),
                   names.pick("", "stay at most 200 steps"),
                   names.pick("", f"leave when {_condition(names)}{_hold(names)}"),
                   *(_action(names) for _ in range(names.draw(st.integers(0, 2)))),
                   names.pick("", f"each 25 steps {_repeated(names)}")]  # fmt: skip
        lines.append(f"level {rung} {{ {'  '.join(names.draw(st.permutations(clauses)))} }}")
    return lines


def _requirements(names: _Names) -> list[str]:
    found = []
    for _ in range(names.draw(st.integers(0, 2))):
        otherwise = names.pick(
            f"{_hold(names)} else alert", f'{_hold(names)} else alert info "x"', f" else {_repeated(names)}"
        )
        found.append(f"{_note(names)}require {_condition(names)}{otherwise}")
    return found


def _trials(names: _Names) -> list[str]:
    found = []
    for _ in range(names.draw(st.integers(0, 2))):
        pieces = ("1.0 x 300", "nan", "-inf", "missing x 3", "ramp(1, 3) x 20", "noise(1, 0.1, seed 3) x 50", "2")
        series = ", ".join(names.draw(st.lists(st.sampled_from(pieces), min_size=1, max_size=4)))
        expect = names.pick(
            "skip at most 3 times",
            "no rollback",
            "halt 0 times",
            "scale_lr >= 0.01 throughout",
            "progress >= 0 at step 0",
        )
        title = f"drawn {len(names.taken)} {names.new()}"
        found.append(f'test "{title}" {{ given {names.signal()[0]} = {series}  expect {expect} }}')
    return found


def _body(names: _Names) -> list[str]:
    lines = _declarations(names)
    for _ in range(names.draw(st.integers(0, 3))):
        if names.draw(st.booleans()):
            value, kind = _ratio(names), names.ratios
        else:
            value, kind = _condition(names), names.conditions
        lines.append(f"let {names.new()} = {value}")
        kind.append(lines[-1].split()[1])
    for _ in range(names.draw(st.integers(0, 2))):
        line, name = _risk(names)
        names.risks.append(name)
        lines.append(line)
    for _ in range(names.draw(st.integers(0, 2))):
        lines.append(
            f"{_note(names)}reflex {names.new()} {{ when {_condition(names)} {_action(names)} "
            f"{names.pick('', 'do skip')} }}"
        )
    lines += _levels(names) if names.draw(st.booleans()) else []
    for _ in range(names.draw(st.integers(0, 2))):
        severity, shown = names.pick("info", "warning", "critical"), names.pick(names.signal()[0], *names.risks)
        lines.append(f'alert {names.new()} {severity} when {_condition(names)}{_hold(names)} "it is {{{shown}}}"')
    lines += _requirements(names) + _trials(names)
    return [*lines, f"limits {{ {' '.join(names.draw(st.permutations(_LIMITS)))} }}"]


@st.composite
def policy_texts(draw: st.DrawFn) -> str:
    """Draw a policy text without errors, over the whole grammar; it may have warnings."""
    names = _Names(draw)
    settings = ['doc "drawn"', "quarantine at most 64 steps", "snapshot every 20 steps", "on failure halt"]
    clauses = draw(st.lists(st.sampled_from(settings), unique=True))
    lines = draw(st.permutations([f"policy drawn {{ {' '.join(clauses)} }}", *_body(names)]))
    breaks = draw(st.lists(st.sampled_from(("\n", "\r\n", " ", "\n# a comment\n", "\t\n\n")), min_size=1, max_size=4))
    return "lbw 1\n" + "".join(line + breaks[index % len(breaks)] for index, line in enumerate(lines))


def policies() -> st.SearchStrategy[Policy]:
    """Draw a checked policy."""
    return policy_texts().map(load)
