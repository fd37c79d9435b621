"""One hostile run as a state machine: all that loops, users, plugins and the machine may do to a guarded training."""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

import lbw_policy as lbw
from lbw_policy.risk import Assessment
from tests.runtime.hostile_audit import Audit, Seen
from tests.runtime.hostile_plugins import (
    LOOSE,
    NONSENSE,
    ORDERS,
    TIGHT,
    Allowed,
    checkpoint,
    mood,
    policy_text,
)
from tests.runtime.hostile_world import KINDS, POISON, ExplosionError, Picture, World, alike, copied, layer_numbers
from tests.strategies import anything

LIMITS = {"tight": TIGHT, "loose": LOOSE}
MOST_FAILURES = 10
REFUSED: tuple[Mapping[str, object], ...] = (
    {"loss": "high"},
    {"loss": None},
    {"loss": torch.ones(2)},
    {"loss": torch.tensor(1j)},
    {"loss": 1j},
    {"order_skip": [1.0]},
    {"unheard_of": 1.0},
    {"order_skip": 1.0, "loss": b"1"},
)
"""What `observe` must not take, whole."""

amounts = st.sampled_from((0.5, 1.0, 2.0, 3.0, 0.01, 1e300, -1.0, 0.0, math.nan, math.inf, -math.inf)) | anything
orders = st.dictionaries(st.sampled_from([name for name in ORDERS if name != "halt"]), amounts, max_size=4)
sensible = st.dictionaries(
    st.sampled_from(("skip", "clip", "scale", "rollback", "freeze", "nudge", "level")),
    st.sampled_from((0.05, 0.25, 0.5, 1.5, 2.5)),
    max_size=3,
)
told_losses = st.sampled_from((None, None, None, math.nan, math.inf, 1e308, 0.0)) | anything


@cache
def policy_of(allowed: Allowed, on_failure: str) -> lbw.Policy:
    return lbw.load(policy_text(allowed, on_failure))


class Liar:
    """A risk model that learns honestly and says anything."""

    def __init__(self, honest: Any, says: Assessment) -> None:  # noqa: ANN401 - stands in for any model
        self._honest, self._says = honest, says

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - all else is as the honest one does
        return getattr(self._honest, name)

    def assess(self, *_: object) -> Assessment:
        return self._says


class HostileRun(RuleBasedStateMachine):
    """One run, from its first step to its last, over any number of processes."""

    world: World
    guard: lbw.Guard | None

    @initialize(
        kind=st.sampled_from(KINDS),
        limits=st.sampled_from(tuple(LIMITS)),
        schedule=st.sampled_from(("none", "told", "untold")),
        on_failure=st.sampled_from(("continue", "continue", "halt")),
        mode=st.sampled_from(("act", "act", "act", "shadow")),
    )
    def begin(self, kind: str, limits: str, schedule: str, on_failure: str, mode: str) -> None:
        mood.__init__()  # type: ignore[misc]  # the plugins start in a good mood
        self.world = World(kind, scheduled=schedule != "none")
        self.schedule, self.policy = schedule, policy_of(LIMITS[limits], on_failure)
        layers = dict(layer_numbers(self.world.model, self.world.optimizer))
        self.audit = Audit(LIMITS[limits], layers, scheduled=schedule == "untold")
        self.told: dict[str, float] = {}
        self.rates = Picture.of(self.world.optimizer).rates
        self.exploded = self.provoked = False
        self.tick = self.noted = self.failing = 0
        self.attach(mode)

    def attach(self, mode: str) -> None:
        scheduler = self.world.scheduler if self.schedule == "told" else None
        self.guard = lbw.attach(
            self.world.optimizer,
            self.policy,
            model=self.world.model,
            scheduler=scheduler,
            checkpoint=checkpoint,
            mode=mode,
        )
        self.mode = mode

    # One step

    @rule(poison=st.sampled_from(tuple(POISON)), orders=orders, loss=told_losses)
    def step(self, poison: str, orders: Mapping[str, float], loss: float | None) -> None:
        found = self.world.backward(poison)
        self.tell(orders, float(found) if loss is None else loss)
        self.judged(self.world.optimizer.step)

    @rule(orders=sensible, count=st.integers(2, 9))
    def a_stretch_of_training(self, orders: Mapping[str, float], count: int) -> None:
        """Train on from sound weights with the same orders, so that what is held and what is spent shows."""
        self.world.heal()
        for _ in range(count):
            loss = self.world.backward()
            self.tell(orders, float(loss))
            self.judged(self.world.optimizer.step)

    @rule(orders=orders, how=st.sampled_from(("positional", "keyword")), poison=st.sampled_from(tuple(POISON)))
    def step_with_a_closure(self, orders: Mapping[str, float], how: str, poison: str) -> None:
        self.tell(orders, None)
        given = Gradients(self.world)

        def closure() -> torch.Tensor:
            loss = self.world.backward(poison)
            given.take()
            self.told["loss"] = float(loss)
            return loss

        step = self.world.optimizer.step
        self.judged((lambda: step(closure)) if how == "positional" else (lambda: step(closure=closure)), given)

    @rule(orders=orders)
    def step_without_gradients(self, orders: Mapping[str, float]) -> None:
        self.world.optimizer.zero_grad()
        self.tell(orders, None)
        self.judged(self.world.optimizer.step)

    @rule()
    def step_that_is_ordered_to_halt(self) -> None:
        self.world.backward()
        self.tell({"halt": 1.0, "skip": 1.0, "scale": 0.3, "checkpoint": 1.0}, None)
        self.judged(self.world.optimizer.step)

    @precondition(lambda self: self.guard is not None)
    @rule(times=st.sampled_from((1, 1, 1, 1, 1, 1, MOST_FAILURES + 1)))
    def steps_in_which_the_guard_fails(self, times: int) -> None:
        machine = self.guard._parts.session.machine  # type: ignore[union-attr]
        machine.decide = lambda *_: 1 / 0  # type: ignore[method-assign]
        for _ in range(times):
            self.world.backward("nan")
            self.tell({"scale": 0.5}, None)
            self.provoked = self.failing < MOST_FAILURES
            self.judged(self.world.optimizer.step)
        del machine.decide
        self.provoked = False

    @rule(scale=st.sampled_from((0.3, 1.0)))
    def step_that_raises_half_way(self, scale: float) -> None:
        self.world.backward()
        self.tell({"scale": scale}, None)
        self.world.optimizer.explodes = True
        self.judged(self.world.optimizer.step)
        self.world.optimizer.explodes = False

    @rule(poison=st.sampled_from(tuple(POISON)))
    def backward_after_which_the_loop_raises(self, poison: str) -> None:
        self.world.backward(poison)
        self.tell({"skip": 1.0}, 1.0)

    def tell(self, orders: Mapping[str, float], loss: float | None) -> None:
        """Observe orders and loss, as tensors every other time; without a guard there is nobody to tell."""
        said = {f"order_{name}": value for name, value in orders.items()} | ({} if loss is None else {"loss": loss})
        if self.guard is not None:
            as_tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in said.items()}
            self.guard.observe(**(as_tensors if self.world.batch % 2 else said))
            self.told |= said
            self.exploded = False

    def judged(self, call: Callable[[], object], given: Gradients | None = None) -> None:
        """Make the step, and let the observer judge it; a closure takes `given` itself."""
        world = self.world
        before = Picture.of(world.optimizer, world.model)
        if given is None:
            given = Gradients(world)
            given.take()
        world.optimizer.used.clear()
        nudged, raised = len(mood.nudged), ""
        try:
            call()
        except (lbw.Halted, ExplosionError, KeyboardInterrupt) as error:
            raised = type(error).__name__
        self.exploded = raised == "ExplosionError"
        self._learn_rates(mood.nudged[nudged:])
        seen = Seen(
            tick=self.tick,
            mode=self.mode if self.guard is not None and self.failing < MOST_FAILURES else "gone",
            before=before,
            given=given.copies,
            objects=given.objects,
            used=list(world.optimizer.used),
            after=Picture.of(world.optimizer, world.model),
            left=world.gradients(),
            records=self._news(),
            raised=raised,
            told=dict(self.told),
            rates=self.rates,
        )
        assert seen.failed == self.provoked or (self.provoked and raised)
        self.audit.judge(world.optimizer, seen)
        self._plugin_was_asked_as_recorded(seen, mood.nudged[nudged:])
        self._pass_tick(seen, interrupted_reading=raised == "KeyboardInterrupt" and nudged == len(mood.nudged))

    def _learn_rates(self, nudged: list[float | None]) -> None:
        if nudged and mood.action == "sets lr":
            self.rates = [torch.full_like(r, 0.03) if isinstance(r, torch.Tensor) else 0.03 for r in self.rates]

    def _news(self) -> tuple[Any, ...]:
        if self.guard is None:
            return ()
        records = self.guard.interventions[self.noted :]
        self.noted += len(records)
        return records

    def _plugin_was_asked_as_recorded(self, seen: Seen, amounts: list[float | None]) -> None:
        record = seen.granted("nudge")
        acts = record is not None and seen.mode == "act" and not seen.granted("halt")
        assert amounts == ([record.granted] if record is not None and acts else [])

    def _pass_tick(self, seen: Seen, *, interrupted_reading: bool) -> None:
        if seen.granted("rollback") and seen.mode == "act":
            self.rates = seen.after.rates
        if self.guard is None:
            return
        if self.failing < MOST_FAILURES:
            self.failing = (
                self.failing + 1 if seen.failed else self.failing * (seen.raised in ("Halted", "KeyboardInterrupt"))
            )
        self.tick += 1
        if not interrupted_reading:
            self.told = {}

    # What users do between steps

    @precondition(lambda self: not self.exploded)
    @rule(rate=st.sampled_from((0.1, 1e-3, 0.0, 5e-324, 1e30)))
    def user_sets_the_learning_rate(self, rate: float) -> None:
        self.world.set_rate(rate)
        self.rates = Picture.of(self.world.optimizer).rates

    @precondition(lambda self: self.world.scheduler is not None and not self.exploded)
    @rule()
    def scheduler_steps(self) -> None:
        with warnings.catch_warnings(action="ignore"):  # torch minds a schedule that goes on before the first step
            self.world.scheduler.step()
        self.rates = Picture.of(self.world.optimizer).rates

    @rule(number=st.integers(0, 5), how=st.sampled_from(("nan", "flip")))
    def a_weight_is_corrupted(self, number: int, how: str) -> None:
        self.world.corrupt(number, how)

    @precondition(lambda self: self.guard is not None)
    @rule(values=st.sampled_from(REFUSED))
    def nonsense_is_observed(self, values: Mapping[str, object]) -> None:
        with pytest.raises((TypeError, ValueError)):
            self.guard.observe(**values)
        self.exploded = False

    @rule(
        signal=st.sampled_from((*NONSENSE, "stops")),
        function=st.sampled_from(tuple(NONSENSE)),
        action=st.sampled_from(("good", "raises", "stops", "sets lr")),
        saving=st.sampled_from(("good", "raises")),
    )
    def plugins_change_their_mood(self, signal: str, function: str, action: str, saving: str) -> None:
        mood.signal, mood.function, mood.action, mood.checkpoint = signal, function, action, saving

    @precondition(lambda self: self.guard is not None)
    @rule(probability=anything, alarm=st.booleans(), trusted=st.booleans())
    def the_risk_model_lies(self, probability: float, alarm: bool, trusted: bool) -> None:
        risks = self.guard._parts.risks
        honest = getattr(risks["divergence"], "_honest", risks["divergence"])
        risks["divergence"] = Liar(honest, Assessment(probability, alarm, trusted, ready=True, raw=probability))

    @precondition(lambda self: self.guard is not None)
    @rule(snapshots=st.booleans(), mode=st.sampled_from(("act", "act", "shadow")))
    def the_run_is_saved_and_goes_on_elsewhere(self, snapshots: bool, mode: str) -> None:
        state = self.guard.state_dict(snapshots=snapshots)
        before = self._standing()
        self.world = self.world.copy()
        self.attach(mode)
        self.guard.load_state_dict(copy.deepcopy(state) if snapshots else json.loads(json.dumps(state)))
        self.exploded, self.failing, self.told = False, 0, {}
        if not snapshots:
            self.audit.archive.clear()
        assert self._standing() == before

    @precondition(lambda self: self.guard is not None)
    @rule(data=st.data())
    def a_damaged_state_is_refused(self, data: st.DataObject) -> None:
        before = json.dumps(self.guard.state_dict())
        state = json.loads(before)
        part = data.draw(st.sampled_from(sorted(state)))
        state[part] = data.draw(st.sampled_from((None, [], -1, "x", {}, {"x": math.nan}, math.nan)))
        try:
            self.guard.load_state_dict(state)
        except lbw.StateError:
            assert json.dumps(self.guard.state_dict()) == before
        self.exploded = False

    @precondition(lambda self: self.guard is not None)
    @rule(unguarded=st.integers(0, 2), mode=st.sampled_from(("act", "act", "shadow")))
    def the_guard_is_taken_off_and_put_on_again(self, unguarded: int, mode: str) -> None:
        state, before = self.guard.state_dict(snapshots=True), self._standing()
        self.guard.detach()
        self.guard, self.exploded, self.told = None, False, {}
        assert not self.world.optimizer._optimizer_step_pre_hooks
        assert not self.world.optimizer._optimizer_step_post_hooks
        kept, self.audit = self.audit, Audit(self.audit.allowed, self.audit.layers, scheduled=False)
        for _ in range(unguarded):
            self.world.backward("nan")
            self.judged(self.world.optimizer.step)
        self.audit = kept
        self.attach(mode)
        self.guard.load_state_dict(state)
        self.failing = 0
        assert self._standing() == before

    @precondition(lambda self: self.guard is not None and not self.exploded)
    @rule(mode=st.sampled_from(("act", "act", "shadow")))
    def the_mode_is_switched(self, mode: str) -> None:
        self.guard.mode = self.mode = mode

    def _standing(self) -> tuple[int, int, str]:
        assert self.guard is not None
        return self.guard.tick, self.guard.progress, self.guard.level

    # What holds after each of these

    @invariant()
    def ticks_and_progress_are_counted(self) -> None:
        if self.guard is not None:
            assert self.guard.tick == self.tick - self.exploded
            if not self.exploded:
                assert self.guard.progress == self.audit.progress

    @invariant()
    def learning_rates_are_the_runs_own(self) -> None:
        assert self.exploded or alike(Picture.of(self.world.optimizer).rates, self.rates)

    @invariant()
    def one_hook_before_and_one_after(self) -> None:
        optimizer = self.world.optimizer
        assert len(optimizer._optimizer_step_pre_hooks) == len(optimizer._optimizer_step_post_hooks) == 1


class Gradients:
    """The gradients that a step is given: themselves and copies."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.objects: list[torch.Tensor | None] = []
        self.copies: list[torch.Tensor | None] = []

    def take(self) -> None:
        """Note what there is now."""
        self.objects = self._world.gradients()
        self.copies = [copied(gradient) for gradient in self.objects]
