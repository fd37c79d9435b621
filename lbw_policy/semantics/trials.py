"""`test` blocks: every name known, every series sound, every expectation able to fail."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from attrs import define, field

from lbw_policy.diagnostics import Span
from lbw_policy.semantics import policy as p
from lbw_policy.semantics import trial as t
from lbw_policy.semantics.literals import Literals
from lbw_policy.semantics.report import Report, did_you_mean, plain
from lbw_policy.syntax import nodes

_NAMED: Mapping[str, type[nodes.Statement]] = {"reflex": nodes.Reflex, "alert": nodes.Alert, "signal": nodes.Signal}


def read_trials(
    report: Report, literals: Literals, policy: p.Policy, statements: Sequence[nodes.Statement]
) -> tuple[t.Trial, ...]:
    """Return the checked tests of a policy; one in error is reported and left out."""
    tests = [node for node in statements if isinstance(node, nodes.Test)]
    if not tests:
        return ()
    reader = _Reader(report, literals, _names(policy, statements))
    _distinct(report, tests)
    return tuple(trial for node in tests if (trial := reader.read(node)))


def _names(policy: p.Policy, statements: Sequence[nodes.Statement]) -> dict[str, tuple[str, ...]]:
    """Return what a test may name, by kind; rules in error count too, they are reported already."""
    found: dict[str, list[str]] = {"reflex": [one.name for one in policy.reflexes]}
    found["alert"] = [one.name for one in policy.alerts]
    found["signal"] = []
    found["risk"] = [one.name for one in policy.risks]
    found["level"] = [one.name for one in policy.levels]
    found["action"] = list(p.ACTION_NAMES.values())
    for node in statements:
        for kind, statement in _NAMED.items():
            if isinstance(node, statement):
                found[kind].append(node.name.text)  # type: ignore[union-attr] # these three have a name
        if isinstance(node, nodes.Limits):
            found["action"] += [entry.name for entry in node.entries if entry.name not in p.NO_ACTION]
    return {kind: tuple(dict.fromkeys(names)) for kind, names in found.items()}


def _distinct(report: Report, tests: Sequence[nodes.Test]) -> None:
    first: dict[str, nodes.Test] = {}
    for node in tests:
        name = node.name.text
        if not name.strip():
            report.error("LBW508", "expected a name for the test, found an empty one", node.name.span,
                         "say what it shows: `test \"a NaN batch is skipped\" { ... }`")  # fmt: skip
        elif name in first:
            message = f"test `{name}` is declared twice"
            report.again("LBW202", message, node.name.span, first[name].name.span, "declared")
        first.setdefault(name, node)


@define
class _Reader:
    """Reads the tests of one policy; `names` has what they may name, by kind."""

    report: Report
    literals: Literals
    names: Mapping[str, tuple[str, ...]]
    _ticks: int = field(init=False, default=0)

    def read(self, node: nodes.Test) -> t.Trial | None:
        """Return a checked test, or None after reporting an error."""
        before = self.report.failures
        given = self._given([clause for clause in node.clauses if isinstance(clause, nodes.Given)])
        expected = [clause for clause in node.clauses if isinstance(clause, nodes.Expect)]
        self._complete(node, bool(expected))
        self._ticks = max((series.ticks for series in given), default=0)
        expectations = tuple(self._expectation(clause) for clause in expected)
        if self.report.failures > before or self.report.torn:
            return None
        sound = tuple(one for one in expectations if one)
        return t.Trial(node.name.text, self._place(node.span), given, sound)

    def _complete(self, node: nodes.Test, expects: bool) -> None:
        title = f"test `{node.name.text}`"
        if not any(isinstance(clause, nodes.Given) for clause in node.clauses):
            self.report.missing("LBW503", f"{title} is given nothing", node.name.span,
                                "say what a signal reads: `given loss = 4.0 x 300, nan`")  # fmt: skip
        if not expects:
            self.report.missing("LBW504", f"{title} expects nothing, so it cannot fail", node.name.span,
                                "say what must happen: `expect skip 1 times`")  # fmt: skip

    def _place(self, span: Span) -> p.Place:
        return p.Place(self.report.source.name_at(span.start), self.report.source.position(span.start)[0])

    def _known(self, word: nodes.Word, kind: str, names: tuple[str, ...], code: str) -> bool:
        """Tell whether a name is one of those given; report it if not."""
        hidden = self.report.torn and word.text in self.literals.scope.broken
        if not word.text or word.text in names or hidden:
            return True
        advice = did_you_mean(word.text, names) or (None if names else f"the policy has no {kind}s")
        self.report.error(code, f"unknown {kind} `{word.text}`", word.span, advice)
        return False

    # What is given

    def _given(self, clauses: Sequence[nodes.Given]) -> tuple[t.Series, ...]:
        found: dict[str, tuple[t.Series, nodes.Given]] = {}
        for clause in clauses:
            series = self._series(clause)
            if series is None:
                continue
            if series.title in found:
                first = found[series.title][1].name.span
                self.report.again("LBW502", f"`{series.title}` is given twice", clause.name.span, first, "given")
            found.setdefault(series.title, (series, clause))
        return tuple(series for series, _ in found.values())

    def _series(self, node: nodes.Given) -> t.Series | None:
        first, rest = node.name.parts[0], node.name.parts[1:]
        risky = first.text in self.names["risk"]
        if not risky and not self._known(first, "signal or risk", self._readable(), "LBW501"):
            return None
        parts = (t.ALARM, t.TRUSTED) if risky else ()
        if len(rest) > 1 or (rest and rest[0].text not in parts):
            self._no_part(node.name, parts)
            return None
        part = rest[0].text if rest else t.PROBABILITY if risky else ""
        series = t.Series(first.text, part, tuple(self._stretch(sample, part) for sample in node.series))
        if series.ticks > t.MOST_TICKS:
            message = f"expected a series of at most {t.MOST_TICKS:_} steps, found {series.ticks:_}"
            self.report.error("LBW510", message, node.span, "a test shows one thing; make it shorter")
        return series

    def _readable(self) -> tuple[str, ...]:
        return self.names["signal"] + self.names["risk"]

    def _no_part(self, name: nodes.Reference, parts: tuple[str, ...]) -> None:
        word, whole = name.parts[-1], ".".join(part.text for part in name.parts[:-1])
        if word.text:
            advice = did_you_mean(word.text, parts)
            self.report.error("LBW501", f"`{whole}` has no part `{word.text}`", word.span, advice)

    def _stretch(self, sample: nodes.Sample, part: str) -> t.Stretch:
        complaint = _complaint(sample, part)
        if complaint:
            self.report.error("LBW509", complaint[0], sample.span, complaint[1])
        return t.Stretch(sample.kind, sample.values, sample.repeat, sample.seed)

    # What is expected

    def _expectation(self, node: nodes.Expect) -> t.Expectation | None:
        claim = self._claim(node)
        text = " ".join(self.report.source.text[node.span.start : node.span.end].split())
        return t.Expectation(claim, text, self._place(node.span)) if claim else None

    def _claim(self, node: nodes.Expect) -> t.Claim | None:
        if node.subject is not None:
            return self._happens(node, node.subject)
        assert node.word is not None
        assert node.moment is not None
        if node.kind == "level":
            known = self._known(node.word, "level", self.names["level"], "LBW505")
            during = self._during(node.moment)
            return t.Stands(node.word.text, during) if known else None
        known = self._known(node.word, "value", t.VALUES, "LBW506")
        during = self._during(node.moment)
        return t.Compares(node.word.text, node.op, node.value, during) if known else None

    def _happens(self, node: nodes.Expect, subject: nodes.Subject) -> t.Claim | None:
        if not self._known(subject.name, subject.kind, self.names[subject.kind], "LBW505"):
            return None
        if node.most is None and not node.least:
            self.report.error("LBW511", "`at least 0 times` is always true, so it cannot fail", node.span,
                              f"write `{_subject(subject)} at least 1 times` or `no {_subject(subject)}`")  # fmt: skip
        return t.Happens(subject.kind, subject.name.text, node.least, node.most)

    def _during(self, moment: nodes.Moment) -> t.During:
        end = self._ticks - 1
        within = self.literals.duration(moment.within) if moment.within else 0
        if moment.kind == "throughout":
            return t.During(0, max(end, 0))
        if 0 <= end < moment.step and not self.report.torn:
            message = f"step {moment.step} lies beyond the test's run, which ends with step {end}"
            self.report.error("LBW507", message, moment.span, "steps count from 0; give a longer series")
        return t.During(moment.step, max(moment.step, min(moment.step + within, end)), any=moment.kind == "within")


def _subject(subject: nodes.Subject) -> str:
    return subject.name.text if subject.kind == "action" else f"{subject.kind} {subject.name.text}"


def _complaint(sample: nodes.Sample, part: str) -> tuple[str, str] | None:
    """Return what is wrong with a stretch of a series, and the advice."""
    if sample.repeat < 1:
        return "expected a stretch of at least 1 step, found `x 0`", "leave it out"
    if sample.kind == "ramp" and sample.repeat < 2:
        return "a ramp of one step has no slope", "say how long it is: `ramp(1, 5) x 20`"
    if sample.kind == "noise" and sample.values[1] < 0:
        return f"expected a spread of at least 0, found `{plain(sample.values[1])}`", "write `noise(MEAN, SPREAD)`"
    return _risk_complaint(sample, part) if part else None


def _risk_complaint(sample: nodes.Sample, part: str) -> tuple[str, str] | None:
    if part != t.PROBABILITY:
        plainly = sample.kind == "missing" or (sample.kind == "value" and sample.values[0] in (0, 1))
        return None if plainly else (f"expected `{part}` to be 0 or 1", "write `0 x 300, 1 x 5`")
    if sample.kind == "noise":
        return "a probability cannot be noise, which has no bounds", "write values or a ramp"
    if all(0 <= value <= 1 or math.isnan(value) for value in sample.values):
        return None
    return "expected a probability from 0 to 1", "write a percentage, such as `30%`"
