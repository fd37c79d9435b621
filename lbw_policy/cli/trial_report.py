"""A failed test in words, with the part of the run around the miss as a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from lbw_policy.cli.suites import Suite
from lbw_policy.diagnostics import printable
from lbw_policy.limits import Grant
from lbw_policy.limits import Outcome as Answer
from lbw_policy.record import instead
from lbw_policy.semantics.trial import Happens
from lbw_policy.trials import Moment, Outcome, Verdict
from lbw_policy.trials.series import starts

_MOST_CENTRES = 8
_MOST_ROWS = 40
_AROUND_EVENT, _AROUND_MISS = 1, 4
_INDENT = "    "


def failure_text(outcome: Outcome) -> str:
    """Return a failed test: its name, each expectation that was missed, and the run around the miss."""
    place = outcome.trial.place
    lines = [f"FAILED {printable(f'{place.path}:{place.line}: {outcome.trial.name}')}"]
    tables: list[tuple[str, ...]] = []
    for verdict in outcome.verdicts:
        if not verdict.passed:
            table = tuple(_table(outcome, verdict))
            lines += ["", *_missed(verdict), *(_INDENT + row for row in ([] if table in tables else table))]
            tables.append(table)
    return "\n".join(line.rstrip() for line in lines)


def verdict_line(verdict: Verdict) -> str:
    """Return a missed expectation in one line."""
    return f"expected {verdict.expected}, found {verdict.found}"


def coverage_text(suite: Suite) -> str:
    """Return what the tests of a policy exercised, and the list of what they did not."""
    found = suite.coverage
    done = len(found.everything) - len(found.never)
    head = f"coverage of {printable(suite.policy.name)}: {done} of {len(found.everything)}, {found.percent:.1f}%"
    return "\n".join([head, *(f"  never: {one}" for one in found.never)])


def _missed(verdict: Verdict) -> Iterator[str]:
    place = verdict.expectation.place
    yield f"  {printable(f'{place.path}:{place.line}')}: expect {printable(verdict.expectation.text)}"
    yield f"{_INDENT}expected {verdict.expected}"
    yield f"{_INDENT}found    {verdict.found}"


# The run around the miss


def _table(outcome: Outcome, verdict: Verdict) -> Iterator[str]:
    centres = _centres(outcome, verdict)
    moments = outcome.trace.moments
    shown = _around(centres, _AROUND_EVENT if len(centres) > 1 else _AROUND_MISS, len(moments))
    titles = [series.title for series in outcome.trial.given]
    header = ["", "step", "level", *titles, "lr factor", "progress", "what happened"]
    rows = [_row(moments[tick], titles, marked=tick in verdict.ticks) for tick in shown]
    yield ""
    yield from _aligned(header, rows, [tick - before > 1 for before, tick in pairwise(shown)])
    if len(verdict.ticks) > _MOST_CENTRES:
        yield f"... and {len(verdict.ticks) - _MOST_CENTRES} more such"
    last = f"step {moments[-1].tick}"
    yield f"the run {'was halted at' if outcome.trace.halted else 'ends with'} {last}"


def _centres(outcome: Outcome, verdict: Verdict) -> Sequence[int]:
    """Return the ticks to look at: the miss; else whatever happened; else where the series change."""
    if verdict.ticks:
        return verdict.ticks[:_MOST_CENTRES]
    eventful = [moment.tick for moment in outcome.trace.moments if not moment.quiet]
    if eventful and isinstance(verdict.expectation.claim, Happens):
        return eventful[:_MOST_CENTRES]
    ends = sorted({tick for series in outcome.trial.given for tick in starts(series)[1:-1]})
    return [tick for tick in ends if tick < len(outcome.trace.moments)][:_MOST_CENTRES] or [0]


def _around(centres: Sequence[int], reach: int, ticks: int) -> list[int]:
    found = {tick for centre in centres for tick in range(centre - reach, centre + reach + 1)}
    return sorted(tick for tick in found if 0 <= tick < ticks)[:_MOST_ROWS]


def _row(moment: Moment, titles: Sequence[str], *, marked: bool) -> list[str]:
    values = [_reading(moment, title) for title in titles]
    scale = f"{moment.scale:.4g}"
    return [
        ">" if marked else "",
        f"{moment.tick}",
        moment.level,
        *values,
        scale,
        f"{moment.progress}",
        _events(moment),
    ]


def _reading(moment: Moment, title: str) -> str:
    """Return what was read: `-` for no reading, nothing where the signal was not due."""
    name, _, part = title.partition(".")
    if name in moment.risks:
        said = moment.risks[name]
        value = getattr(said, part or "probability")
        return "-" if value is None else f"{float(value):.4g}"
    if title not in moment.values:
        return ""
    number = moment.values[title]
    return "-" if number is None else f"{number:.4g}"


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]], gaps: Sequence[bool]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    yield _line(header, widths)
    for row, gap in zip(rows, [False, *gaps], strict=True):
        if gap:
            yield " " * (widths[0] + 1) + "..."
        yield _line(row, widths)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Align words to the left and numbers to the right."""
    words = {0, 2, len(cells) - 1}
    padded = [
        cell.ljust(width) if at in words else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


# What happened in a tick


def _events(moment: Moment) -> str:
    decision = moment.decision
    found = [f"{decision.previous} -> {decision.level}"] if decision.previous != decision.level else []
    found += [text for grant in moment.grants if (text := _answer(grant))]
    answered = {grant.request.rule for grant in moment.grants}
    found += _unanswered((f"reflex {name}" for name in decision.fired), answered)
    found += [f"alert {message.alert}" for message in decision.messages]
    return "; ".join(found)


def _unanswered(fired: Iterable[str], answered: set[str]) -> list[str]:
    return [f"{rule} fired" for rule in fired if rule not in answered]


def _answer(grant: Grant) -> str:
    action, rule = grant.request.action, grant.request.rule
    if grant.outcome is Answer.REFUSED:
        return f"{action} by {rule} refused: {grant.reason}, {instead(grant.fallback)}"
    amount = "" if grant.amount is None else f" {grant.amount:.4g}"
    if not grant.starts:
        return "" if action == "clip" else f"{action}{amount} held"
    reduced = f", asked {grant.request.amount:.4g}" if _reduced(grant) else ""
    return f"{action}{amount} by {rule}{reduced}"


def _reduced(grant: Grant) -> bool:
    return grant.outcome is Answer.REDUCED and grant.request.amount is not None
