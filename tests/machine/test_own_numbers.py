"""A number the loop tells may be called like something the guard counts: it is still the loop's number."""

from __future__ import annotations

import pytest

from lbw_policy.machine import Session
from lbw_policy.runtime.replaying import Binding
from lbw_policy.semantics import Policy, load
from lbw_policy.semantics.signals import EVENTS


def policy(name: str, source: str) -> Policy:
    return load(f'lbw 1 policy p {{ }} signal {name} = observed.{source} alert high info when {name} > 3 "{{{name}}}"')


@pytest.mark.parametrize("source", EVENTS)
@pytest.mark.parametrize("name", ["mine", "the same"])
def test_an_observed_number_is_not_taken_for_what_the_guard_counts(name: str, source: str) -> None:
    name = source if name == "the same" else name
    session = Session(policy(name, source))
    session.begin({name: 5.0})

    assert [message.text for message in session.decide({}).decision.messages] == ["5"]


@pytest.mark.parametrize("source", EVENTS)
def test_a_replay_reads_an_observed_number_of_that_name_from_its_column(source: str) -> None:
    assert Binding.of(policy("mine", source), ["tick", source]).signals == {"mine": source}
