"""Tree -> Policy: resolves, types and bounds everything, and reports every mistake it meets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar, cast

from attrs import define, evolve, field, frozen

from lbw_policy.diagnostics import Diagnostic, Source, Span
from lbw_policy.semantics import ceilings, types
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.bounds import read_limits
from lbw_policy.semantics.clauses import once, require
from lbw_policy.semantics.expressions import Number
from lbw_policy.semantics.extensions import check_grouped, check_signal, risk_model
from lbw_policy.semantics.ladder import order_levels
from lbw_policy.semantics.linking import EDITION, Heir, Linked, link
from lbw_policy.semantics.lints import lint
from lbw_policy.semantics.literals import Literals
from lbw_policy.semantics.models import RISK_MODELS
from lbw_policy.semantics.notes import check_ids
from lbw_policy.semantics.params import read_params
from lbw_policy.semantics.plugins import signal_kind
from lbw_policy.semantics.report import Report, did_you_mean
from lbw_policy.semantics.rules import RuleChecker
from lbw_policy.semantics.scope import Scope
from lbw_policy.semantics.signals import SIGNALS
from lbw_policy.semantics.tightening import check_tightened
from lbw_policy.semantics.trials import read_trials
from lbw_policy.semantics.typing import ExpressionChecker
from lbw_policy.syntax import Parsed, nodes

Node = TypeVar("Node", bound=nodes.Statement)


@frozen
class Checked:
    """The outcome of a check: every finding, and the policy if none of them is an error."""

    policy: p.Policy | None
    diagnostics: tuple[Diagnostic, ...]


def check_source(source: Source, params: Mapping[str, float] | None = None, path: Path | None = None) -> Checked:
    """Check a policy text, with values for some of its params; never raises on any text.

    What the text imports and extends is looked for from the folder of `path`.
    """
    linked = link(source, path)
    policy, report = _check(linked, linked.heir, dict(params or {}))
    found = linked.sorted([*linked.found, *report.found])
    if linked.found or report.failed():
        return Checked(None, found)
    return Checked(evolve(policy, warnings=found), found)


def _check(linked: Linked, heir: Heir, params: dict[str, float]) -> tuple[p.Policy, Report]:
    """Check one policy of a line of `extends`, and first the one it extends."""
    parent = None
    if heir.parent is not None:
        parent, above = _check(linked, heir.parent, heir.parent.own(params, heir.params))
        if above.failed():  # what is wrong with the parent would be said again of the child
            return parent, above
    report = Report(linked.source, torn=bool(linked.found))
    policy = _Checker(linked.parsed(heir), report, params).run()
    if parent is not None and heir.extends is not None and not report.failed() and not report.torn:
        check_tightened(report, policy, parent, linked.places(heir), heir.extends)
        policy = evolve(policy, parent=parent.limits)
    return policy, report


@define
class _Checker:
    parsed: Parsed
    report: Report
    overrides: dict[str, float]
    values: dict[str, float] = field(factory=dict)
    units: dict[str, types.Unit] = field(factory=dict)

    def run(self) -> p.Policy:
        statements = self.parsed.tree.statements
        if not self.parsed.diagnostics:
            self._header()
        scope = Scope(self.report, self.parsed.declared)
        scope.declare(statements)
        literals = Literals(self.report, scope, self.values)
        params = self._params(literals)
        signals = [self._signal(literals, node) for node in self._all(nodes.Signal)]
        sampling = {signal.name: signal.every for signal in signals}
        expressions = ExpressionChecker(self.report, scope, literals, self.units, sampling)
        before = self.report.failures
        limits = read_limits(self.report, literals, self._one(nodes.Limits))
        rules = RuleChecker(self.report, expressions, literals, limits, self.report.failures == before)
        lets = [(let.name.text, expressions.let(let, let.span)) for let in self._all(nodes.Let)]  # unused ones too
        policy = self._policy(literals, expressions, rules)
        names = tuple((name, typed.expression) for name, typed in lets if typed)
        policy = evolve(policy, params=params, signals=tuple(signals), limits=limits, names=names)
        own = tuple(p.Signal(name, name) for name in sorted(expressions.own))
        policy = evolve(policy, signals=policy.signals + own)
        policy = evolve(policy, tests=read_trials(self.report, literals, policy, statements))
        check_ids(self.report, statements)
        if not self.parsed.diagnostics:
            lint(self.report, policy, scope, statements)
        return policy

    def _policy(self, literals: Literals, expressions: ExpressionChecker, rules: RuleChecker) -> p.Policy:
        header = self._one(nodes.Policy)
        settings = once(self.report, header.clauses, "the policy") if header else {}
        levels = tuple(rules.level(node) for node in self._all(nodes.Level))
        reflexes = [rules.reflex(node) for node in self._all(nodes.Reflex)]
        alerts = [rules.alert(node) for node in self._all(nodes.Alert)]
        required = [rules.require(node, at) for at, node in enumerate(self._all(nodes.Require), start=1)]
        return p.Policy(
            name=header.name.text if header else "",
            doc=_text(settings.get("doc")),
            digest=self._digest(),
            params=(),
            signals=(),
            risks=tuple(_risk(self.report, literals, expressions, node) for node in self._all(nodes.Risk)),
            reflexes=tuple(one for one in (*reflexes, *required) if isinstance(one, p.Reflex)),
            levels=order_levels(self.report, self._one(nodes.Levels), self._all(nodes.Level), levels),
            alerts=tuple(one for one in (*alerts, *required) if isinstance(one, p.Alert)),
            limits=p.Limits(),
            quarantine=_steps(literals, settings.get("quarantine"), 256),
            snapshot_every=_steps(literals, settings["snapshot"], 1) if "snapshot" in settings else None,
            on_failure=_on_failure(literals, settings.get("on_failure")),
            layers=tuple(_group(node) for node in self._all(nodes.Layers)),
        )

    def _digest(self) -> str:
        text = self.report.source.text.replace("\r\n", "\n")
        values = ";".join(f"{name}={value!r}" for name, value in sorted(self.values.items()))
        return hashlib.sha256(f"{text}\0{values}".encode("utf-8", "surrogatepass")).hexdigest()

    # Statements of one kind

    def _all(self, kind: type[Node]) -> list[Node]:
        return [node for node in self.parsed.tree.statements if isinstance(node, kind)]

    def _one(self, kind: type[Node]) -> Node | None:
        found = self._all(kind)
        for extra in found[1:]:
            message = f"`{kind.__name__.lower()}` is given twice"
            self.report.again("LBW113", message, extra.span, found[0].span, "given")
        return found[0] if found else None

    def _header(self) -> None:
        tree = self.parsed.tree
        if tree.edition is None:
            self.report.error("LBW111", f"expected `lbw {EDITION}` as the first words", Span(0, 1),
                              "it names the edition of the language the policy is written in")  # fmt: skip
        elif tree.edition.number.value != EDITION:
            message = f"expected `lbw {EDITION}`, found an unknown edition"
            self.report.error("LBW110", message, tree.edition.span, "a newer edition needs a newer lbw_policy")
        if not self._all(nodes.Policy):
            self.report.error("LBW112", "expected a `policy NAME { }` statement, found none", None,
                              'add `policy my_policy { doc "..." }`')  # fmt: skip

    # Declarations

    def _params(self, literals: Literals) -> tuple[p.Param, ...]:
        declared = self._all(nodes.Param)
        params = read_params(self.report, literals, declared, self.overrides)
        self.values.update({param.name: param.value for param in params})
        self.units.update({node.name.text: types.NAMED.get(node.unit.text, types.NUMBER) for node in declared})
        return params

    def _signal(self, literals: Literals, node: nodes.Signal) -> p.Signal:
        clauses = once(self.report, node.clauses, f"signal `{node.name.text}`")
        kinds = [name for name in ("hold", "skip", "unsafe") if name in clauses]
        if len(kinds) > 1:
            message = f"`missing` is given twice in signal `{node.name.text}`"
            self.report.again("LBW219", message, clauses[kinds[1]].span, clauses[kinds[0]].span, "given")
        missing = p.Missing(kinds[0], _steps(literals, clauses.get("hold"), 0)) if kinds else p.Missing()
        every = _steps(literals, clauses.get("every"), 1)
        observed, source = self._source(node)
        kind = None if observed else signal_kind(source)
        self.units[node.name.text] = kind.unit if kind else types.NUMBER
        group = literals.scope.group(node.group) if node.group else ""
        if group:
            check_grouped(self.report, node, kind)
        return p.Signal(node.name.text, source, observed, every, missing, group)

    def _source(self, node: nodes.Signal) -> tuple[bool, str]:
        parts = node.source.parts
        source = parts[-1].text
        if not source:  # the parser has reported it
            return False, source
        if len(parts) != 2 or parts[0].text not in ("telemetry", "observed"):
            self.report.error("LBW222", f"expected `telemetry.NAME` or `observed.NAME`, found `{node.source.text}`",
                              node.source.span, did_you_mean(source, tuple(SIGNALS)))  # fmt: skip
        elif parts[0].text == "telemetry":
            check_signal(self.report, parts[1])
        return parts[0].text == "observed", source


def _text(clause: nodes.Setting | None) -> str:
    return clause.value.text if clause and isinstance(clause.value, nodes.Word) else ""


def _steps(literals: Literals, clause: nodes.Setting | None, default: int) -> int:
    if clause is None:
        return default
    return literals.duration(cast(nodes.Duration, clause.value))


def _group(node: nodes.Layers) -> p.LayerGroup:
    globs, excepted = (tuple(word.text for word in words) for words in (node.globs, node.excepted))
    return p.LayerGroup(node.name.text, globs, excepted)


def _on_failure(literals: Literals, clause: nodes.Setting | None) -> str:
    if clause is None:
        return "continue"
    return literals.word(cast(nodes.Word, clause.value), ("continue", "halt"), "choice")


def _risk(report: Report, literals: Literals, expressions: ExpressionChecker, node: nodes.Risk) -> p.Risk:
    clauses = once(report, node.clauses, f"risk `{node.name.text}`")
    require(report, clauses, ("horizon", "features", "alarm", "trust"), f"risk `{node.name.text}`", node.name.span)
    settings = {name: clause for name, clause in clauses.items() if isinstance(clause, nodes.Setting)}
    model, fallback, alarm = settings.get("model"), settings.get("fallback"), clauses.get("alarm")
    standard, features = _features(report, expressions, clauses.get("features"))
    return p.Risk(
        name=node.name.text,
        horizon=_steps(literals, settings.get("horizon"), 10),
        features=features,
        standard=standard,
        model=risk_model(report, cast(nodes.Word, model.value)) if model else RISK_MODELS[0],
        alarm=_rate(literals, alarm) if isinstance(alarm, nodes.Rate) else 0.0,
        trust_after=_steps(literals, settings.get("trust"), 200),
        fallback=literals.real(cast(nodes.Number, fallback.value), 0.0, 1.0, "a probability") if fallback else 0.0,
    )


def _rate(literals: Literals, node: nodes.Rate) -> float:
    window = literals.duration(node.window, ceilings.WINDOW)
    return literals.real(node.count, 0.0, float(window), "a number of false alarms") / window


def _features(
    report: Report, expressions: ExpressionChecker, node: nodes.Setting | nodes.Features | nodes.Rate | None
) -> tuple[bool, tuple[tuple[str, Number], ...]]:
    standard, found = False, {}
    for item in node.items if isinstance(node, nodes.Features) else ():
        if isinstance(item, nodes.Reference) and item.text == "standard":
            standard = True
            continue
        typed = expressions.number(item)
        if typed is not None and typed.risky:
            report.error("LBW223", "a feature cannot read a risk", item.span, "a feature is made of signals only")
        elif typed is not None:
            found[report.source.text[item.span.start : item.span.end]] = typed.number
    return standard, tuple(found.items())
