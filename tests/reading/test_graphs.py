"""Diagrams: valid whatever a policy holds, and every transition of the machine is an edge."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from lbw_policy.machine import RiskValues, StateMachine
from lbw_policy.reading import edges, to_dot, to_mermaid
from lbw_policy.semantics import Policy, load
from tests.strategies import risk_readings, streams, unchecked_policies
from tests.texts import policies

TEXT = r"[A-Za-z0-9_ .,()/*+=]|#\w+;|<br/>"
MERMAID = re.compile(
    "|".join(
        (
            "stateDiagram-v2",
            "    direction TB",
            rf'    state "(?:{TEXT})*" as L\d+',
            rf"    L\d+ : (?:{TEXT})+",
            r"    \[\*\] --> L0",
            rf"    L\d+ --> (?:L\d+|\[\*\]) : (?:{TEXT})+",
            "    note right of L0",
            rf" {{8}}(?:{TEXT})*",
            "    end note",
        )
    )
)
STRING = r'"(?:[^"\\\n]|\\.)*"'
DOT = re.compile(
    rf"digraph {STRING} \{{|    \w+( -> \w+)?( \[(\w+=({STRING}|[\w.]+) ?)+\])?;|\}}",
)
names = st.text(max_size=20) | st.sampled_from(
    ("end note", '"];', "a --> b", "style x:#y;", "%%{init", "\\", "<b>&lt;")
)


@settings(max_examples=60, deadline=None)
@given(unchecked_policies(), st.lists(names, min_size=4, max_size=4))
def test_every_line_is_mermaid_and_dot_whatever_the_names_are(policy: Policy, called: list[str]) -> None:
    levels = tuple(evolve(level, name=name) for level, name in zip(policy.levels, called, strict=False))
    renamed = evolve(policy, name=called[0], levels=levels)
    assert all(MERMAID.fullmatch(line) for line in to_mermaid(renamed).splitlines()), to_mermaid(renamed)
    assert all(DOT.fullmatch(line) for line in to_dot(renamed).splitlines()), to_dot(renamed)
    assert len(re.findall(r"(?i)end note", to_mermaid(renamed))) <= 1


@settings(max_examples=60, deadline=None)
@given(policies())
def test_every_level_and_reflex_is_shown(policy: Policy) -> None:
    for index, level in enumerate(policy.levels):
        assert f" as L{index}\n" in to_mermaid(policy)
        assert f'L{index} [label="{level.name}' in to_dot(policy)
    for reflex in policy.reflexes:
        assert re.search(rf"reflex\W+{reflex.name}\b", to_dot(policy).replace("\\l", " "))


@settings(max_examples=60, deadline=None)
@given(unchecked_policies(), streams(), st.lists(risk_readings(), min_size=1, max_size=4))
def test_every_transition_of_the_machine_is_an_edge(
    policy: Policy, stream: list[tuple[int, dict[str, float | None]]], risks: list[Mapping[str, RiskValues]]
) -> None:
    known = {(edge.source, edge.target) for edge in edges(policy) if edge.kind != "halt"}
    machine, places = StateMachine(policy), {level.name: index for index, level in enumerate(policy.levels)}
    for index, (tick, values) in enumerate(stream):
        machine.begin(tick, values)
        decision = machine.decide(risks[index % len(risks)])
        if decision.previous != decision.level:
            assert (places[decision.previous], places[decision.level]) in known


def test_an_edge_tells_its_trigger_and_its_hold() -> None:
    labels = {(edge.source, edge.target, edge.kind): edge.label for edge in edges(load("conservative"))}
    assert labels[3, 4, "up"] == "high > 3 and lasting > 3 for 3 of 4 steps"
    assert labels[4, 3, "down"] == "surprise < 3 and high < 2 for 5 steps, or after 100 steps"
    assert labels[0, 4, "jump"] == "as faint to recover"


def test_a_level_that_halts_leads_to_the_end() -> None:
    text = "lbw 1\npolicy p { }\nsignal loss = telemetry.loss\nlevels a -> b\nlevel b { enter when loss > 1 do halt }"
    assert "    L1 --> [*] : halt\n" in to_mermaid(load(text))
    assert "    L1 -> halted " in to_dot(load(text))


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz is not installed")
@settings(max_examples=5, deadline=None)
@given(unchecked_policies(), names)
def test_graphviz_draws_it(policy: Policy, name: str) -> None:
    drawn = to_dot(evolve(policy, name=name))
    found = subprocess.run(["dot", "-Tsvg"], input=drawn.encode(), capture_output=True, check=False)  # noqa: S607
    assert found.returncode == 0
    assert found.stderr == b""
