"""Compiles checked expressions to closures over one tick's readings, statistics and risks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

from attrs import define, field

from lbw_policy.machine import closures
from lbw_policy.machine.closures import NumberClosure, TruthClosure
from lbw_policy.machine.readings import Readings
from lbw_policy.machine.trends import TRENDS, Trend
from lbw_policy.machine.windows import RankedWindow, SummedWindow
from lbw_policy.semantics.expressions import (
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

Step = Callable[[], None]


def leaves(node: Number) -> Iterator[Reading | RiskReading]:
    """Yield every reading that the number depends on."""
    if isinstance(node, Reading | RiskReading):
        yield node
    elif isinstance(node, Arithmetic):
        yield from leaves(node.left)
        yield from leaves(node.right)
    elif isinstance(node, Function | Statistic):
        yield from leaves(node.argument)


@define(eq=False)
class Argument:
    """A number that statistics are taken of, evaluated once a tick.

    `learnable` tells that the value is finite and made of fresh readings only, `unknown` that it
    is not finite; a value that is None is neither.
    """

    _evaluate: NumberClosure
    _readings: Readings
    _needs: int
    value: float | None = field(init=False, default=None)
    sample: float = field(init=False, default=0.0)
    learnable: bool = field(init=False, default=False)
    unknown: bool = field(init=False, default=False)

    def take(self) -> None:
        """Evaluate the number for this tick."""
        value = self.value = self._evaluate()
        self.learnable = self.unknown = False
        if value is None:
            return
        if math.isfinite(value):
            self.sample, needs = value, self._needs
            self.learnable = self._readings.fresh & needs == needs
        else:
            self.unknown = True

    def forget(self) -> None:
        """Drop the value of an earlier tick."""
        self.value, self.learnable, self.unknown = None, False, False


@define(eq=False)
class Phase:
    """What is computed together within a tick, each part after the parts it reads."""

    arguments: list[Argument] = field(init=False, factory=list)
    steps: list[Step] = field(init=False, factory=list)
    places: list[int] = field(init=False, factory=list)


@define(eq=False)
class Compiler:
    """Makes closures, and with them the windows and the order in which statistics are computed.

    `early` needs nothing but signals; `late` needs the risk models too. Equal windows are shared.
    """

    readings: Readings
    early: Phase = field(init=False, factory=Phase)
    late: Phase = field(init=False, factory=Phase)
    results: list[float | None] = field(init=False, factory=list)
    ranked: dict[tuple[Number, int], RankedWindow] = field(init=False, factory=dict)
    summed: dict[tuple[Number, int], SummedWindow] = field(init=False, factory=dict)
    trends: dict[Statistic, Trend] = field(init=False, factory=dict)
    baselines: dict[Statistic, NumberClosure] = field(init=False, factory=dict)
    """What gives the present value of each baseline but `zscore`: none of them reads the present sample."""
    learning: list[tuple[Argument, Callable[[float], None]]] = field(init=False, factory=list)
    _arguments: dict[Number, Argument] = field(init=False, factory=dict)
    _places: dict[Statistic, int] = field(init=False, factory=dict)

    def number(self, node: Number) -> NumberClosure:
        """Return a closure that gives the number's value this tick."""
        if isinstance(node, Constant):
            return closures.constant(node.value)
        if isinstance(node, Reading):
            return closures.cell(self.readings.values, self.readings.place(node.signal))
        if isinstance(node, Statistic):
            return closures.cell(self.results, self._place(node))
        return self._operation(node)

    def _operation(self, node: RiskReading | Arithmetic | Function) -> NumberClosure:
        if isinstance(node, RiskReading):
            return closures.probability(self.readings, node.risk)
        if isinstance(node, Function):
            return closures.function(closures.plain(node.name), self.number(node.argument))
        return closures.arithmetic(closures.ARITHMETIC[node.op], self.number(node.left), self.number(node.right))

    def condition(self, node: Condition, negate: bool = False) -> TruthClosure:
        """Return a closure that gives the `Truth` of the condition, or of its negation, this tick."""
        if isinstance(node, Not):
            return self.condition(node.operand, not negate)
        if isinstance(node, Both | Either):
            join = closures.both if isinstance(node, Both) != negate else closures.either
            return join(self.condition(node.left, negate), self.condition(node.right, negate))
        return self._test(node, negate)

    def _test(self, node: Comparison | Finite | RiskReading, negate: bool) -> TruthClosure:
        if isinstance(node, RiskReading):
            return closures.risk(self.readings, node, negate)
        if isinstance(node, Finite):
            return closures.finite(self.number(node.argument), negate)
        return closures.comparison(node, negate, self.number(node.left), self.number(node.right))

    def _place(self, node: Statistic) -> int:
        if node not in self._places:
            self._add(node)
        return self._places[node]

    def _add(self, node: Statistic) -> None:
        phase, argument = self._phase(node.argument), self._argument(node.argument)
        place = self._places[node] = len(self.results)
        self.results.append(None)
        phase.places.append(place)
        if node.name in TRENDS:
            phase.steps.append(self._trend(node, argument, place))
        elif node.name in ("mean", "std"):
            phase.steps.append(self._sum(node, argument))
        else:
            phase.steps.append(self._rank(node, argument, place))

    def _phase(self, node: Number) -> Phase:
        return self.late if any(isinstance(leaf, RiskReading) for leaf in leaves(node)) else self.early

    def _argument(self, node: Number) -> Argument:
        if node not in self._arguments:
            signals = {leaf.signal for leaf in leaves(node) if isinstance(leaf, Reading)}
            needs = sum(1 << self.readings.place(signal) for signal in signals)
            argument = self._arguments[node] = Argument(self.number(node), self.readings, needs)
            phase = self._phase(node)
            phase.arguments.append(argument)
            phase.steps.append(argument.take)
        return self._arguments[node]

    def _trend(self, node: Statistic, argument: Argument, place: int) -> Step:
        trend = self.trends[node] = TRENDS[node.name](node.samples)
        readings, results = self.readings, self.results

        def step() -> None:
            if argument.learnable:
                trend.follow(readings.tick, argument.sample)
            results[place] = math.nan if argument.unknown and trend.value is not None else trend.value

        return step

    def _sum(self, node: Statistic, argument: Argument) -> Step:
        key = (node.argument, node.samples)
        if key not in self.summed:
            self.summed[key] = SummedWindow(node.samples)
            self.learning.append((argument, self.summed[key].push))
        window = self.summed[key]
        return self._baseline(node, window, window.mean if node.name == "mean" else window.std)

    def _rank(self, node: Statistic, argument: Argument, place: int) -> Step:
        key = (node.argument, node.samples)
        if key not in self.ranked:
            self.ranked[key] = RankedWindow(node.samples)
            self.learning.append((argument, self.ranked[key].push))
        window = self.ranked[key]
        if node.name == "zscore":
            return self._zscore(window, argument, place)
        if node.name == "quantile":
            return self._baseline(node, window, partial(window.quantile, node.share or 0.0))
        measures = {
            "median": window.median,
            "min": window.least,
            "max": window.greatest,
            "spread": window.relative_range,
        }
        return self._baseline(node, window, measures[node.name])

    def _baseline(self, node: Statistic, window: RankedWindow | SummedWindow, measure: Callable[[], float]) -> Step:
        results, place = self.results, self._places[node]

        def value() -> float | None:
            return measure() if window.ready else None

        def step() -> None:
            results[place] = measure() if window.ready else None

        self.baselines[node] = value
        return step

    def _zscore(self, window: RankedWindow, argument: Argument, place: int) -> Step:
        results = self.results

        def step() -> None:
            value = argument.value
            results[place] = window.zscore(value) if value is not None and window.ready else None

        return step
