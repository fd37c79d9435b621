"""What tuning found, as a table for people and as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from lbw_policy.tuning.counting import FEWEST, Score, per_1000
from lbw_policy.tuning.params import Setting, Space
from lbw_policy.tuning.runs import Parts, Run, composition
from lbw_policy.tuning.search import Search, Tried, front

MOST_ROWS = 16
"""Rows of the front that are shown; where there are more, some of them."""
_FIGURES = ("caught", "lead", "false", "at most")
_WORDS = {"diverged": "diverged", "healthy": "healthy", "survived": "survived their trouble"}


@frozen
class Row:
    """A setting of the trade-off; `held_out` is its score on the runs held out, None where there are none."""

    tried: Tried
    held_out: Score | None
    present: bool
    chosen: bool

    @property
    def mark(self) -> str:
        """What is special about it, in words."""
        return ", ".join(word for word, true in (("present", self.present), ("chosen", self.chosen)) if true)


@frozen(eq=False)
class Tuned:
    """The outcome: what was searched, on which runs, under which budget, and what was chosen, if anything.

    `failing` names the policy's own tests that pass now and fail under the chosen values.
    """

    policy: str
    space: Space
    parts: Parts
    budget: float
    search: Search
    chosen: Tried | None
    held_out: Mapping[tuple[float, ...], Score]
    failing: tuple[str, ...] = ()

    def rows(self) -> list[Row]:
        """Return the trade-off by rising false alarms, with the present setting and the chosen one in it."""
        return [self._row(one) for one in shown(self.search, self.space, self.chosen)]

    def _row(self, one: Tried) -> Row:
        held = self.held_out.get(tuple(one.setting.values()))
        return Row(one, held, one is self.search.present, one is self.chosen)


def shown(search: Search, space: Space, chosen: Tried | None) -> list[Tried]:
    """Return what the table shows: the front, thinned where it is long, the present setting and the chosen one."""
    edge = front(search.tried, space)
    if len(edge) > MOST_ROWS:
        edge = [edge[number * (len(edge) - 1) // (MOST_ROWS - 1)] for number in range(MOST_ROWS)]
    special = [one for one in (search.present, chosen) if one is not None]
    extra = [one for number, one in enumerate(special) if not any(one is each for each in (*edge, *special[:number]))]
    return sorted([*edge, *extra], key=lambda one: (one.score.rate, one.score.caught))


def text(tuned: Tuned) -> Iterator[str]:
    """Yield the lines of the report."""
    yield f"{tuned.policy}: {_tuned(tuned)}, at most {tuned.budget:g} false alarms per 1_000 healthy steps"
    yield f"  chosen on  {_made(tuned.parts.chosen_on)}"
    if tuned.parts.held_out:
        yield f"  held out   {_made(tuned.parts.held_out)}"
    yield ""
    yield from _table(tuned)
    yield ""
    yield _verdict(tuned)
    yield from _rules(tuned)
    yield from (f"note: {note}" for note in _notes(tuned))


def _tuned(tuned: Tuned) -> str:
    names = ", ".join(f"`{one.name}`" for one in tuned.space.params)
    return f"{names} at {_many(len(tuned.search.tried), 'setting')}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _made(runs: Sequence[Run]) -> str:
    """Return what some runs are made of, in words."""
    kinds = composition(runs)
    parts = ", ".join(f"{kinds[kind]} {words}" for kind, words in _WORDS.items() if kinds[kind])
    steps = sum(min(run.healthy, run.trace.rows) for run in runs)
    return f"{_many(len(runs), 'run')}: {parts}; {steps:_} healthy steps"


def _table(tuned: Tuned) -> Iterator[str]:
    names = [one.name for one in tuned.space.params]
    parts = 2 if tuned.parts.held_out else 1
    lines = [[*names, *_FIGURES * parts, ""], *(_cells(row, tuned.space) for row in tuned.rows())]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    if parts == 2:
        before = sum(widths[: len(names)]) + 2 * len(names)
        one = sum(widths[len(names) : len(names) + len(_FIGURES)]) + 2 * len(_FIGURES)
        yield " " * before + "chosen on".ljust(one) + "held out"
    for line in lines:
        yield "  ".join(cell.rjust(width) for cell, width in zip(line[:-1], widths, strict=False)) + _tail(line[-1])


def _tail(mark: str) -> str:
    return f"  <- {mark}" if mark else ""


def _cells(row: Row, space: Space) -> list[str]:
    values = [one.literal(row.tried.setting[one.name]) for one in space.params]
    held = [] if row.held_out is None else _figures(row.held_out)
    return [*values, *_figures(row.tried.score), *held, row.mark]


def _figures(score: Score) -> list[str]:
    lead = "-" if score.lead is None else f"{score.lead:g}"
    caught = f"{100 * score.caught:.1f}%" if score.troubled else "-"
    rates = [f"{score.rate:.2f}", f"{score.at_most:.2f}"] if score.healthy else ["-", "-"]
    return [caught, lead, *rates]


def _verdict(tuned: Tuned) -> str:
    if tuned.chosen is None:
        return _nothing(tuned)
    if tuned.chosen is tuned.search.present:
        return "chosen: the present values; no other setting tried is better"
    values = ", ".join(_change(tuned.space, tuned.chosen.setting, one.name) for one in tuned.space.params)
    return f"chosen: {values}"


def _change(space: Space, setting: Setting, name: str) -> str:
    one = next(each for each in space.params if each.name == name)
    before = "" if setting[name] == one.value else f" (was {one.literal(one.value)})"
    return f"{name} = {one.literal(setting[name])}{before}"


def _nothing(tuned: Tuned) -> str:
    quiet = min(tuned.search.tried, key=lambda one: one.score.rate).score
    catching = [one.score.rate for one in tuned.search.tried if one.score.leads]
    if not catching:
        return "nothing chosen: no setting tried catches a divergence"
    reason = f"the lowest rate of one that catches anything is {min(catching):.2f}"
    if quiet.rate <= tuned.budget:
        reason += ", and what is within the budget catches nothing"
    return f"nothing chosen: no setting tried is within the budget of {tuned.budget:g}; {reason}"


def _rules(tuned: Tuned) -> Iterator[str]:
    """Tell which rules the false alarms are of: where there are too many, these are to be looked at."""
    whose, score = ("chosen", tuned.chosen.score) if tuned.chosen else ("present", tuned.search.present.score)
    if score.false:
        counts = ", ".join(f"{rule} {count}" for rule, count in score.rules.most_common(6))
        yield f"false alarms of the {whose} values: {counts}"


def _notes(tuned: Tuned) -> Iterator[str]:
    for name, reason in tuned.space.left.items():
        yield f"param `{name}` is left as it is: it {reason}"
    for reason, times in sorted(tuned.search.passed_over.items()):
        yield f"{_many(times, 'setting')} passed over: {reason}"
    for name in tuned.failing:
        yield f'its test "{name}" passes now, and fails under the chosen values'
    present = tuned.search.present.score
    if per_1000(FEWEST, present.healthy) > tuned.budget:
        least = per_1000(FEWEST, present.healthy)
        yield f"{present.healthy:_} healthy steps are few: without one false alarm they show no rate below {least:.2f}"
    held = None if tuned.chosen is None else tuned.held_out.get(tuple(tuned.chosen.setting.values()))
    if held and held.rate > tuned.budget:
        yield f"on the runs held out the chosen values are beyond the budget: {held.rate:.2f} per 1_000"


def as_json(tuned: Tuned) -> dict[str, Any]:
    """Return the outcome as plain data."""
    kinds = {"chosen_on": tuned.parts.chosen_on, "held_out": tuned.parts.held_out}
    return {
        "version": 1,
        "policy": tuned.policy,
        "budget": tuned.budget,
        "runs": {name: {"runs": len(runs), **composition(runs)} for name, runs in kinds.items()},
        "present": dict(tuned.space.present),
        "chosen": None if tuned.chosen is None else dict(tuned.chosen.setting),
        "failing_tests": list(tuned.failing),
        "left": dict(tuned.space.left),
        "passed_over": dict(tuned.search.passed_over),
        "trade_off": [_row(row) for row in tuned.rows()],
        "tried": [{"params": dict(one.setting), **one.score.as_dict()} for one in tuned.search.tried],
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "params": dict(row.tried.setting),
        "present": row.present,
        "chosen": row.chosen,
        "chosen_on": row.tried.score.as_dict(),
        "held_out": None if row.held_out is None else row.held_out.as_dict(),
    }
