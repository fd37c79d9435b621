"""Golden outputs of the shipped presets; `--rewrite-cases` writes what is found as the new expectation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve

from lbw_policy.authority import card
from lbw_policy.reading import differences, explain, report, to_dot, to_mermaid
from lbw_policy.reading.printing import to_markdown, to_text
from lbw_policy.resources import presets
from lbw_policy.semantics import Policy, load

CASES = Path(__file__).parent.parent / "cases_reading"
SHOWN: dict[str, Callable[[Policy], str]] = {
    "graph.mmd": to_mermaid,
    "graph.dot": to_dot,
    "explanation.txt": lambda policy: to_text(explain(evolve(policy, digest="0" * 64))),
    "explanation.md": lambda policy: to_markdown(explain(evolve(policy, digest="0" * 64))),
    "card.txt": lambda policy: card(policy).as_text() + "\n",
    "differences.txt": lambda policy: report(differences(load("conservative"), policy)),
}


@pytest.mark.parametrize("output", sorted(SHOWN))
@pytest.mark.parametrize("preset", ["conservative", "monitor", "transformer_pretraining"])
def test_a_preset_is_shown_as_written_down(preset: str, output: str, rewrite_cases: bool) -> None:
    expected, found = CASES / preset / output, SHOWN[output](load(preset))
    if rewrite_cases:
        expected.parent.mkdir(parents=True, exist_ok=True)
        expected.write_text(found, encoding="utf-8")
    assert found == expected.read_text(encoding="utf-8")


def test_every_case_is_a_shipped_preset() -> None:
    assert {path.name for path in CASES.iterdir()} <= set(presets())
