"""Both tiers agree, decision for decision and bit for bit, and the device tier waits for nothing before an update."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lbw_policy.semantics.policy import Policy
from lbw_policy.telemetry import gradients
from tests.runtime.device_runs import OPTIMIZERS, Run, Told, policies, same, tellings

RELAXED = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
kinds = st.sampled_from(tuple(OPTIMIZERS))


@contextmanager
def no_second_look() -> Iterator[None]:
    """Let an overflowed norm count for infinite on the host too, as it must where nobody waits."""
    with pytest.MonkeyPatch.context() as patch:
        real = gradients.settle
        patch.setattr(gradients, "settle", lambda norms, _: real(norms, None))
        yield


def went(run: Run, seen: Counter[str]) -> None:
    """Count what a run granted, and how many of its ticks waited."""
    seen.update(record.action for record in run.guard.interventions if record.outcome in ("granted", "reduced"))


def test_without_levels_both_tiers_do_and_record_the_same() -> None:
    seen = Counter[str]()

    @RELAXED
    @given(policy=policies(levels=False), told=tellings(), kind=kinds)
    def check(policy: Policy, told: list[Told], kind: str) -> None:
        with no_second_look():
            runs = [Run.of(kind, policy, tier) for tier in ("device", "host")]
            for one in told:
                for run in runs:
                    run.go(one)
            same(*runs)
        assert runs[0].guard.tier == "device"
        went(runs[0], seen)

    check()
    assert min(seen[action] for action in ("skip", "clip", "scale_lr")) >= 10, seen


def test_with_levels_a_run_that_does_not_wait_is_one_that_waits_for_every_tick() -> None:
    seen = Counter[str]()

    @RELAXED
    @given(policy=policies(levels=True), told=tellings(), kind=kinds)
    def check(policy: Policy, told: list[Told], kind: str) -> None:
        runs = [Run.of(kind, policy, "device") for _ in range(2)]
        runs[1].guard._parts.ahead.trusted = False  # every tick waits for its numbers
        for one in told:
            for run in runs:
                run.go(one)
        same(*runs)
        went(runs[0], seen)

    check()
    assert min(seen[action] for action in ("skip", "clip", "scale_lr", "freeze")) >= 5, seen
