"""What is granted happens, and nothing else: real runs with a limiter that lets one action through, or none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from attrs import define, evolve, field
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lbw_policy as lbw
from lbw_policy.limits import Grant, Limiter, Outcome, Request, Situation
from lbw_policy.semantics.signals import EVENTS, SIGNALS
from tests.runtime.hostile_plugins import LOOSE, ORDERS, installed, mood
from tests.runtime.hostile_run import orders, policy_of
from tests.runtime.hostile_world import KINDS, POISON, Picture, Used, World, alike, copied, unguarded_step

EVERYTHING = {name: 0.3 for name in ORDERS if name not in ("level", "halt")}
SCRIPT: tuple[tuple[str, Mapping[str, float]], ...] = (
    *[("none", {})] * 8,
    *[("none", EVERYTHING)] * 3,
    *[("none", {"level": 2.5})] * 3,
    ("nan", {}),
    ("huge", {"clip": 1.0}),
    *[("none", EVERYTHING | {"halt": 1.0})] * 2,
)
"""Steps, each with what spoils the gradients and what is ordered."""
Rule = Callable[[Limiter, int, Sequence[Request], Situation], tuple[Grant, ...]]


@pytest.fixture(scope="module", autouse=True)
def _plugins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with installed(tmp_path_factory.mktemp("site")):
        yield


def only(*allowed: str) -> Rule:
    """Return a limiter's rule that refuses everything but the actions named."""
    real = Limiter.rule

    def rule(self: Limiter, tick: int, requests: Sequence[Request], situation: Situation) -> tuple[Grant, ...]:
        wanted = [request for request in requests if request.action in allowed]
        granted = real(self, tick, wanted, evolve(situation, otherwise=lambda *_: ()))
        others = [request for request in requests if request.action not in allowed]
        return (*granted, *(Grant(one, Outcome.REFUSED, None, "the door is shut", starts=False) for one in others))

    return rule


@define
class Step:
    """One step: what was there, what was used, what is there now."""

    before: Picture
    given: list[Used]
    used: list[Used]
    after: Picture
    raised: bool


@define
class Run:
    """A guarded world under the hostile policy, and what was called beside it."""

    world: World
    guard: lbw.Guard
    saved: list[int] = field(factory=list)

    @classmethod
    def of(cls, kind: str) -> Run:
        mood.__init__()  # type: ignore[misc]  # the plugins start in a good mood
        world, saved = World(kind, scheduled=False), list[int]()
        guard = lbw.attach(
            world.optimizer, policy_of(LOOSE, "continue"), model=world.model, checkpoint=lambda: saved.append(1)
        )
        return cls(world, guard, saved)

    def step(self, poison: str, ordered: Mapping[str, float]) -> Step:
        world = self.world
        loss = world.backward(poison)
        self.guard.observe(loss=loss, **{f"order_{name}": value for name, value in ordered.items()})
        before, objects, given = Picture.of(world.optimizer), world.gradients(), as_given(world)
        world.optimizer.used.clear()
        raised = False
        try:
            world.optimizer.step()
        except lbw.Halted:
            raised = True
        assert all(one is other or one is None for one, other in zip(world.gradients(), objects, strict=True))
        return Step(before, given, list(world.optimizer.used), Picture.of(world.optimizer), raised)


def as_given(world: World) -> list[Used]:
    return [Used(copied(g["lr"]), [copied(p.grad) for p in g["params"]]) for g in world.optimizer.param_groups]


def landed(optimizer: Any, step: Step, used: list[Used], *, fresh: bool = False) -> bool:  # noqa: ANN401 - a spied one
    """Tell whether the step ended where a bare optimizer gets with what was used, from the same or a fresh state."""
    start = evolve(step.before, state=[{} for _ in step.before.state]) if fresh else step.before
    expected = unguarded_step(optimizer, start, used)
    return alike(step.after.weights, expected.weights) and alike(step.after.state, expected.state)


def untouched(step: Step) -> bool:
    return alike(step.after.weights, step.before.weights) and alike(step.after.state, step.before.state)


def clipped(given: Used, used: Used) -> bool:
    """Tell whether all gradients were multiplied by one factor no greater than 1."""
    pairs = [(a, b) for a, b in zip(given.gradients, used.gradients, strict=True) if a is not None and b is not None]
    ratios = [(b.norm() / a.norm()).item() for a, b in pairs if a.norm() > 0 and math.isfinite(a.norm())]
    same_length = len(pairs) == sum(gradient is not None for gradient in given.gradients)
    return same_length and all(ratio <= 1.0 + 1e-6 for ratio in ratios)


def held(given: Used, used: Used) -> bool:
    return all(b is None or alike(a, b) for a, b in zip(given.gradients, used.gradients, strict=True))


def slowed(given: Used, used: Used) -> bool:
    return alike(given.gradients, used.gradients) and LOOSE.lowest <= float(used.rate / given.rate) * (1 + 1e-6) <= 1.1


def each(test: Callable[[Used, Used], bool], step: Step) -> bool:
    return all(test(one, other) for one, other in zip(step.given, step.used, strict=True))


def same_rates(given: Used, used: Used) -> bool:
    return alike(given.rate, used.rate)


DOES: dict[str, Callable[[Any, Step], bool]] = {
    "skip": lambda optimizer, step: untouched(step),
    "halt": lambda optimizer, step: step.raised and untouched(step),
    "clip": lambda optimizer, step: (
        each(clipped, step) and each(same_rates, step) and landed(optimizer, step, step.used)
    ),
    "freeze": lambda optimizer, step: (
        each(held, step) and each(same_rates, step) and landed(optimizer, step, step.used)
    ),
    "scale_lr": lambda optimizer, step: each(slowed, step) and landed(optimizer, step, step.used),
    "reset_moments": lambda optimizer, step: landed(optimizer, step, step.given, fresh=True),
    "nudge": lambda optimizer, step: landed(optimizer, step, step.given),
    "checkpoint": lambda optimizer, step: landed(optimizer, step, step.given),
}
"""What each action may do to a step."""


@pytest.mark.parametrize("kind", ["sgd momentum", "adamw amsgrad tensor lr"])
@pytest.mark.parametrize("action", DOES)
def test_one_action_alone_does_what_it_says_and_nothing_else(
    action: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Limiter, "rule", only(action))
    run = Run.of(kind)
    for poison, ordered in SCRIPT:
        step = run.step(poison, ordered)
        plain = not step.raised and landed(run.world.optimizer, step, step.given)

        assert plain or DOES[action](run.world.optimizer, step)
        assert alike(step.before.rates, step.after.rates)
    done = {record.action for record in run.guard.interventions if record.outcome in ("granted", "reduced")}
    assert done - {"alert"} == {action}
    assert bool(mood.nudged) == (action == "nudge")
    assert bool(run.saved) == (action == "checkpoint")


def test_a_rollback_alone_brings_back_what_was_there_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Limiter, "rule", only("rollback"))
    run, past = Run.of("adamw"), list[Picture]()
    backs = 0
    for poison, ordered in SCRIPT:
        step = run.step(poison, ordered)
        back = any(alike(step.after.weights, old.weights) and alike(step.after.state, old.state) for old in past)

        assert back or landed(run.world.optimizer, step, step.given)
        past.append(step.after)
        backs += back
    assert backs


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    kind=st.sampled_from(KINDS),
    steps=st.lists(st.tuples(st.sampled_from(tuple(POISON)), orders), min_size=6, max_size=20),
)
def test_behind_a_shut_door_a_guarded_run_is_an_unguarded_one_to_the_bit(
    kind: str, steps: list[tuple[str, Mapping[str, float]]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Limiter, "rule", only())
        run, twin = Run.of(kind), World(kind, scheduled=False)
        for poison, ordered in [*steps, ("nan", EVERYTHING | {"halt": 1.0, "level": 9.0})]:
            run.step(poison, ordered)
            twin.backward(poison)
            twin.optimizer.step()
            one, other = (Picture.of(world.optimizer, world.model) for world in (run.world, twin))

            assert alike([one.weights, one.state, one.rates, one.buffers],
                         [other.weights, other.state, other.rates, other.buffers])  # fmt: skip
            assert alike(run.world.gradients(), twin.gradients())
    assert {record.outcome for record in run.guard.interventions} <= {"refused", "info", "warning", "critical"}
    assert not mood.nudged
    assert not run.saved


def test_reading_every_signal_changes_nothing() -> None:
    """Telemetry works in place on buffers of its own; here is that they are its own."""
    measured = [name for name in SIGNALS if name not in EVENTS and name != "loss"]
    run, twin = World("adamw", scheduled=False), World("adamw", scheduled=False)
    read = [name for name in measured if _attaches(name)]
    text = "lbw 1 policy p { }\n" + "\n".join(f"signal s_{name} = telemetry.{name}" for name in read)
    shown = " ".join(f'alert a_{name} info when s_{name} > 1e300 "{{s_{name}}}"' for name in read)
    lbw.attach(run.optimizer, text + "\n" + shown, model=run.model)
    for step in range(25):
        for world in (run, twin):
            world.backward("inf" if step == 20 else "none")
            world.optimizer.step()
        one, other = (Picture.of(world.optimizer, world.model) for world in (run, twin))

        assert alike([one.weights, one.state, one.buffers], [other.weights, other.state, other.buffers])
        assert alike(run.gradients(), twin.gradients())
    assert len(read) > len(measured) / 2


def _attaches(name: str) -> bool:
    """Tell whether this small model has what a signal needs."""
    world = World("adamw", scheduled=False)
    text = f'lbw 1 policy p {{ }} signal s = telemetry.{name} alert a info when s > 1 "x"'
    try:
        lbw.attach(world.optimizer, text, model=world.model)
    except lbw.AttachError:
        return False
    return True
