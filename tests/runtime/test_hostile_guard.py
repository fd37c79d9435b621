"""The real guard on a real optimizer, while everything around it lies, fails or is cut off in the middle.

After each step an outside observer recounts every limit and recomputes the update; it knows the
policy's limits, the records and the tensors, and nothing of the guard's inside.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from lbw_policy.actions import Gradients, Snapshots, UpdateScale
from lbw_policy.limits import Grant, Limiter, limiter
from lbw_policy.limits.budget import SlidingBudget
from lbw_policy.runtime import effects
from lbw_policy.runtime.effects import Effects
from lbw_policy.runtime.records import Recorder
from tests.runtime.hostile_plugins import installed
from tests.runtime.hostile_run import HostileRun


@pytest.fixture(scope="module", autouse=True)
def _plugins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    log = logging.getLogger("lbw_policy")
    log.setLevel(logging.CRITICAL + 1)  # every step here has something to complain about
    with installed(tmp_path_factory.mktemp("site")):
        yield
    log.setLevel(logging.NOTSET)


def test_a_guard_among_liars_keeps_every_limit() -> None:
    wide = settings(max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(HostileRun, settings=wide)


# Does the observer see anything? A fixed drill, with a sound guard and with broken ones.


def drill(kind: str, limits: str) -> HostileRun:
    """Run through every action, budget and interruption once, and return the run."""
    run = HostileRun()
    run.begin(kind=kind, limits=limits, schedule="untold", on_failure="continue", mode="act")
    script: tuple[Callable[[], object], ...] = (
        lambda: run.a_stretch_of_training(orders={}, count=9),
        lambda: run.a_stretch_of_training(orders={"skip": 1.0}, count=6),
        lambda: run.a_stretch_of_training(orders={"scale": 0.05}, count=3),
        lambda: run.a_stretch_of_training(orders={}, count=9),
        lambda: run.a_stretch_of_training(orders={"rollback": 1.0}, count=1),
        lambda: run.a_stretch_of_training(orders={"clip": 0.01}, count=1),
        lambda: run.the_run_is_saved_and_goes_on_elsewhere(snapshots=True, mode="act"),
        lambda: run.a_stretch_of_training(orders={"rollback": 1.0, "nudge": 9.0}, count=4),
        lambda: run.a_stretch_of_training(orders={}, count=12),
        lambda: run.step_that_raises_half_way(scale=0.3),
        lambda: run.a_stretch_of_training(orders={"clip": 0.01, "freeze": 1.0}, count=9),
        run.scheduler_steps,
        lambda: run.a_stretch_of_training(orders={"rollback": 1.0}, count=9),
        run.step_that_is_ordered_to_halt,
    )
    for act in script:
        act()
        run.ticks_and_progress_are_counted()
        run.learning_rates_are_the_runs_own()
        run.one_hook_before_and_one_after()
    return run


@pytest.mark.parametrize("limits", ["tight", "loose"])
@pytest.mark.parametrize("kind", ["sgd", "adamw amsgrad tensor lr"])
def test_the_drill_exercises_everything_and_a_sound_guard_passes_it(kind: str, limits: str) -> None:
    done = {action for _, action in drill(kind, limits).audit.events}

    assert done == {"skip", "scale_lr", "rollback", "clip", "nudge", "freeze"} | {"checkpoint"}


Method = Callable[..., Any]


def forgetting_the_row(settle: Method) -> Method:
    def settled(self: Limiter, tick: int, grants: list[Grant]) -> None:
        settle(self, tick, grants)
        self.in_a_row = 0

    return settled


def lengthening(clip: Method) -> Method:
    return lambda self, factor: clip(self, min(1.0, 2 * factor))


def always(value: object) -> Callable[[Method], Method]:
    return lambda _: lambda *_, **__: value


SABOTAGE: dict[str, tuple[object, str, Callable[[Method], Method]]] = {
    "budgets never run out": (SlidingBudget, "allows", always(True)),
    "budgets are one too large": (SlidingBudget, "allows", lambda _: lambda self, tick: self.left(tick) > -1),
    "spending is forgotten": (SlidingBudget, "spend", always(None)),
    "amounts are not held to their range": (limiter, "clamp", lambda _: lambda value, low, high: value),
    "a resumed run starts with full budgets": (Limiter, "load_state_dict", always(None)),
    "skips in a row are not counted": (Limiter, "_settle", forgetting_the_row),
    "a freeze has no end": (Limiter, "_settle_freeze", always(None)),
    "learning rates are not given back": (UpdateScale, "release", always(None)),
    "gradients are not given back": (Gradients, "release", always(None)),
    "a skip does nothing": (Gradients, "drop", always(None)),
    "a clip clips less than it says": (Gradients, "clip", lengthening),
    "a rollback leaves the moments": (Snapshots, "_restore_optimizer", always(None)),
    "a rollback rewinds the schedule": (Effects, "_scheduled_rates", always([])),
    "every layer is frozen": (effects, "select", lambda _: lambda ranking, layers, tied, share: tuple(layers)),
    "nothing is recorded": (Recorder, "tick", always(None)),
}
"""Faults of a guard, each as what to replace, and by what."""


@pytest.mark.parametrize("fault", SABOTAGE)
def test_the_observer_notices(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, broken = SABOTAGE[fault]
    monkeypatch.setattr(owner, name, broken(getattr(owner, name)))

    with pytest.raises((AssertionError, KeyError)):
        drill("sgd momentum", "tight")
