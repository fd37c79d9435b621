"""Whatever raises, and wherever: learning rates, gradients and hooks are the run's own again, and the guard goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import optim

import lbw_policy as lbw
from tests.actions.matrix import Normed

TEXT = """lbw 1
policy all_at_once { doc "every action, as the loop tells it" }
signal now = observed.now
reflex some {
  when now > 0  do scale_lr by 0.3  do clip to 0.01  do freeze top 50% of layers by grad_norm  do checkpoint
}
reflex none { when now > 1 do skip }
reflex anew { when now > 2 do reset_moments }
reflex back { when now > 3 do rollback at most 4 steps }
limits {
  scale_lr within [0.1, 1]  clip at most 99 per 100 steps  freeze at most 50% of layers, for at most 99 steps
  checkpoint at most 99 per 100 steps  skip at most 99 in a row, at most 99 per 100 steps
  reset_moments at most 99 per 100 steps  rollback at most 4 steps back, at most 99 per 100 steps
}
"""
POLICY = lbw.load(TEXT)
RATE = 0.1 + 0.2
NAMES = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks", "_optimizer_state_dict_pre_hooks")
THEIRS = ("forward", "update", "earlier hook", "later hook", "late post hook", "early post hook", "scheduler", "save")
OURS = ("read", "decide", "choose", "tick", "apply", "adjust", "learn", "capture", "restore")
FAULTS = st.sampled_from((None, *THEIRS, *OURS))
ERRORS = st.sampled_from((RuntimeError, KeyboardInterrupt))


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    """Keep the guard's own log out of the report: here it fails all the time."""
    logging.getLogger("lbw_policy").disabled = True
    yield
    logging.getLogger("lbw_policy").disabled = False


class Fragile(optim.SGD):
    """Momentum, and a step that can be made to fail."""

    broken: Callable[[], None] = staticmethod(lambda: None)

    def step(self, closure: object = None) -> object:
        self.broken()
        return super().step(closure)


class Loop:
    """A guarded loop into which exceptions are thrown."""

    def __init__(self, *, closure: bool, tensor: bool) -> None:
        self.closure, self.fault, self.error = closure, None, RuntimeError
        self.model = Normed()
        rate = torch.tensor(RATE, dtype=torch.float64) if tensor else RATE
        self.optimizer = Fragile(self.model.parameters(), lr=rate, momentum=0.9)
        self.optimizer.broken = lambda: self.at("update")
        self.optimizer.register_step_pre_hook(lambda *_: self.at("earlier hook"))
        self.optimizer.register_step_post_hook(lambda *_: self.at("early post hook"))
        self.before = self.hooks()
        self.guard = lbw.attach(self.optimizer, POLICY, model=self.model, checkpoint=lambda: self.at("save"))
        self.optimizer.register_step_pre_hook(lambda *_: self.at("later hook"))
        self.optimizer.register_step_post_hook(lambda *_: self.at("late post hook"))
        self.attached = self.hooks()
        self.gradients: list[torch.Tensor] = []

    def hooks(self) -> list[int]:
        return [len(getattr(self.optimizer, name)) for name in NAMES]

    def at(self, place: str) -> None:
        if place == self.fault:
            raise self.error(place)

    def backward(self, seed: int) -> torch.Tensor:
        self.optimizer.zero_grad()
        loss = self.model(seed)
        loss.backward()
        self.gradients = [parameter.grad for parameter in self.model.parameters()]
        self.at("forward")
        return loss

    def step(self, seed: int, now: int) -> None:
        self.gradients = []
        self.guard.observe(now=now)
        if self.closure:
            self.optimizer.step(lambda: self.backward(seed))
        else:
            self.backward(seed)
            self.optimizer.step()
        self.at("scheduler")

    @contextmanager
    def broken(self, fault: str | None, error: type[BaseException]) -> Iterator[None]:
        """Let a place of theirs or ours raise."""
        parts = self.guard._parts
        places = {
            "read": (parts.collector, "read"),
            "decide": (parts.session.machine, "decide"),
            "choose": (parts.effects, "choose"),
            "tick": (self.guard._recorder, "tick"),
            "apply": (parts.effects, "apply"),
            "adjust": (parts.effects, "_adjust"),
            "learn": (type(self.guard._deciding), "learn"),
            "capture": (parts.effects.snapshots, "capture"),
            "restore": (parts.effects.snapshots, "restore"),
        }
        self.fault, self.error = fault, error
        try:
            if fault in places:
                with mock.patch.object(*places[fault], side_effect=error(fault)):
                    yield
            else:
                yield
        finally:
            self.fault = None

    def check(self) -> None:
        """Everything is the run's own once the guard is asked for anything, or the optimizer for its state."""
        (group,) = self.optimizer.state_dict()["param_groups"]
        assert float(group["lr"]) == RATE
        assert float(self.optimizer.param_groups[0]["lr"]) == RATE
        assert self.hooks() == self.attached
        for parameter, gradient in zip(self.model.parameters(), self.gradients, strict=False):
            assert parameter.grad is gradient or parameter.grad is None


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 4), FAULTS, ERRORS), min_size=1, max_size=8),
    closure=st.booleans(),
    tensor=st.booleans(),
)
def test_nothing_of_the_guards_is_left_behind(
    steps: list[tuple[int, str | None, type[BaseException]]], closure: bool, tensor: bool
) -> None:
    loop = Loop(closure=closure, tensor=tensor)
    for seed in range(3):
        loop.step(seed, 0)
    for seed, (now, fault, error) in enumerate(steps):
        with loop.broken(fault, error):
            try:
                loop.step(seed, now)
            except (RuntimeError, KeyboardInterrupt):
                assert fault in THEIRS or error is KeyboardInterrupt
        loop.check()
    tick = loop.guard.tick
    records = len([record for record in loop.guard.interventions if record.action == "failure"])
    for seed in range(3):
        loop.step(seed, 0)
        loop.check()
    assert loop.guard.tick == tick + 3
    assert len([record for record in loop.guard.interventions if record.action == "failure"]) == records
    assert all(torch.isfinite(parameter).all() for parameter in loop.model.parameters())
    loop.guard.detach()
    assert loop.hooks() == [count + more for count, more in zip(loop.before, (1, 1, 0), strict=True)]


@pytest.mark.parametrize("now", [1, 2])
@pytest.mark.parametrize("fault", THEIRS)
def test_gradients_are_given_back_as_the_loop_left_them(fault: str, now: int) -> None:
    loop = Loop(closure=False, tensor=False)
    for seed in range(3):
        loop.step(seed, 0)
    with loop.broken(fault, KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        loop.step(3, now)
    loop.check()
    assert all(p.grad is gradient for p, gradient in zip(loop.model.parameters(), loop.gradients, strict=True))
    assert loop.gradients


@pytest.mark.parametrize("steps", [5, 6, 7, 8])
def test_an_update_that_fails_after_a_rollback_gives_up_the_snapshots_of_the_lost_history(steps: int) -> None:
    loop = Loop(closure=False, tensor=False)
    for seed in range(steps):
        loop.step(seed, 0)
    with loop.broken("update", RuntimeError), pytest.raises(RuntimeError, match="update"):
        loop.step(steps, 4)
    loop.check()
    held, schedule = loop.guard._parts.effects.snapshots, loop.guard._parts.session.schedule
    assert {one.progress for one in held.slots} == {one.progress for one in schedule.taken}
    for seed in range(9):
        loop.step(seed, 4 * (seed == 8))
    assert [record.outcome for record in loop.guard.interventions if record.action == "rollback"] == ["granted"] * 2
