"""Random policies over the whole grammar: they check, they are the same every time, and they can be compiled."""

from __future__ import annotations

import attrs
from hypothesis import given, settings

from lbw_policy.diagnostics import Severity, Source, render
from lbw_policy.machine import StateMachine
from lbw_policy.semantics import Policy, check_bytes, check_source, load
from lbw_policy.semantics.spelling import spell
from lbw_policy.semantics.walk import conditions_of
from tests.texts import policies, policy_texts

HEAD = "lbw 1\npolicy p { }\nsignal loss = telemetry.loss\n"


def without_places(policy: Policy) -> Policy:
    """Return a policy as it would be if all of its text stood on one line."""
    return attrs.evolve(
        policy,
        digest="",
        reflexes=tuple(attrs.evolve(one, place=None) for one in policy.reflexes),
        levels=tuple(attrs.evolve(one, place=None) for one in policy.levels),
        alerts=tuple(attrs.evolve(one, place=None) for one in policy.alerts),
    )


@settings(max_examples=30, deadline=None)
@given(policy_texts())
def test_every_drawn_text_checks(text: str) -> None:
    checked = check_source(Source("p.lbw", text))
    assert checked.policy is not None, "\n".join(render(finding) for finding in checked.diagnostics)
    assert all(finding.severity is Severity.WARNING for finding in checked.diagnostics)
    assert checked.policy.warnings == checked.diagnostics


@settings(max_examples=30, deadline=None)
@given(policy_texts())
def test_the_same_text_gives_the_same_policy_and_findings(text: str) -> None:
    assert check_source(Source("p.lbw", text)) == check_source(Source("p.lbw", text))


@settings(max_examples=30, deadline=None)
@given(policy_texts())
def test_line_ends_and_a_byte_order_mark_do_not_change_the_policy(text: str) -> None:
    plain = text.replace("\r\n", "\n")
    policy = check_bytes("p.lbw", plain.encode()).policy
    assert policy is not None
    assert policy == check_bytes("p.lbw", b"\xef\xbb\xbf" + plain.encode()).policy
    assert policy == check_bytes("p.lbw", plain.replace("\n", "\r\n").encode()).policy
    assert without_places(policy) == without_places(load("\ufeff" + plain))
    lines = [line.partition("#")[0] for line in plain.split("\n")]
    one_line = check_bytes("p.lbw", " ".join(lines).encode()).policy
    assert one_line is not None
    assert without_places(one_line) == without_places(policy)
    assert one_line.digest != policy.digest or plain.count("\n") == 0


@settings(max_examples=30, deadline=None)
@given(policies())
def test_every_checked_policy_can_be_compiled_and_run(policy: Policy) -> None:
    machine = StateMachine(policy)
    for tick in range(3):
        machine.begin(tick, {signal.name: 1.0 for signal in policy.signals})
        assert machine.decide({}).level == policy.levels[0].name or policy.levels[1:]


def test_the_deepest_expressions_that_check_can_be_compiled_and_spelt() -> None:
    lets = "let a0 = loss\n" + "".join(f"let a{i + 1} = abs(a{i})\n" for i in range(97))
    policy = load(f'{HEAD}{lets}alert x info when a97 > 1 "x"')
    StateMachine(policy)
    assert spell(conditions_of(policy)[0]).count("abs") == 97


def test_lets_may_be_used_before_they_are_declared() -> None:
    policy = load(f'{HEAD}alert x info when b > 1 "x"\nlet b = a + 1\nlet a = 2 * loss')
    assert spell(conditions_of(policy)[0]) == "2 * loss + 1 > 1"
