"""`overhead at most N%`: a guard measures itself, thins its own sampling, and comes back. No test looks at a clock."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping

import pytest
import torch
from attrs import define, field
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn, optim

import lbw_policy as lbw
from lbw_policy.errors import StateError
from lbw_policy.machine import Session, by_signal
from lbw_policy.machine.schedule import slack
from lbw_policy.runtime import Guard
from lbw_policy.runtime.cadence import FACTORS, wants
from lbw_policy.runtime.meter import Meter, due
from lbw_policy.runtime.pacing import Pace
from lbw_policy.runtime.thinning import Thinning
from lbw_policy.semantics import Policy
from lbw_policy.telemetry import Stopwatch
from lbw_policy.telemetry.readings import Packet

POLICY = """lbw 1
policy p { snapshot every 4 steps }
signal loss = telemetry.loss
signal ratio = telemetry.update_ratio
signal grad = telemetry.grad_norm
signal shape = telemetry.activation_variance { every 5 steps  missing unsafe }
signal high = telemetry.nonfinite_params
reflex broken { when not finite(loss) or high > 0  do skip }
levels normal -> caution
level caution {
  enter when ratio > 1e6
  leave when ratio < 1e5  for 3 steps
  do rollback at most 50 steps
}
alert tall info when grad > 1e9 or shape > 1e9 "{grad}"
limits {
  skip      at most 3 in a row, at most 10 per 100 steps
  rollback  at most 50 steps back, at most 3 per 1_000 steps
  intervene at most 20 per 100 steps
  overhead  at most 2%
}
"""
FREE = POLICY.replace("  overhead  at most 2%\n", "")


@define(slots=False)
class Clock:
    """Time that passes only where a test says so."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@define(slots=False)
class Run:
    """A guarded training in which a step takes a second, and reading a source what `costs` says."""

    costs: dict[str, float]
    text: str = POLICY
    mode: str = "act"
    tier: str = "host"
    snapshot: float = 0.0
    clock: Clock = field(factory=Clock)
    read: list[frozenset[str]] = field(factory=list)
    guard: Guard = field(init=False)

    def __attrs_post_init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
        self.optimizer = optim.AdamW(self.model.parameters(), lr=1e-3, fused=self.tier == "device")
        policy = lbw.load(self.text)
        self.guard = lbw.attach(self.optimizer, policy, model=self.model, mode=self.mode, tier=self.tier)
        parts = self.guard._parts
        if parts.thinning:
            parts.thinning.meter.watch.clock = self.clock
        take, capture = parts.collector.measure, parts.effects.snapshots.capture  # type: ignore[union-attr]

        def read(tick: int) -> object:
            self.read.append(parts.collector.due(tick))
            self.clock.now += sum(self.costs.get(key, 0.0) for key in self.read[-1])
            return take(tick)

        def slow(tick: int, progress: int) -> None:
            self.clock.now += self.snapshot
            capture(tick, progress)

        parts.collector.measure, parts.effects.snapshots.capture = read, slow  # type: ignore

    def train(self, steps: int, loss_of: Callable[[int], float | None] = lambda _: None, **told: float) -> Run:
        """Train for some steps; `loss_of` may replace the loss that is told."""
        for _ in range(steps):
            self.optimizer.zero_grad()
            inputs = torch.randn(4, 4, generator=torch.Generator().manual_seed(self.guard.tick))
            loss = self.model(inputs).square().mean()
            loss.backward()
            given = loss_of(self.guard.tick)
            self.guard.observe(loss=loss.detach() if given is None else given, **told)
            self.clock.now += 1.0
            self.optimizer.step()
        return self

    @property
    def notes(self) -> list[str]:
        """What the guard said about itself."""
        return [record.reason for record in self.guard.interventions if record.rule == "guard"]


DEAR = {"update_ratio": 0.03, "grad_norm": 0.015, "activation_variance": 0.1}


def ticks_of(read: list[frozenset[str]], key: str, begin: int = 0) -> list[int]:
    """Return the ticks that sampled a source."""
    return [tick for tick, keys in enumerate(read) if key in keys and tick >= begin]


def test_too_dear_a_guard_thins_its_sampling_and_says_so() -> None:
    run = Run(DEAR).train(300)
    assert run.notes == [
        "the guard takes 6.5% of a step, its limit is 2%: signals are sampled every 2nd time",
        "the guard takes 3.25% of a step, its limit is 2%: signals are sampled every 4th time",
    ]
    found = run.guard.overhead
    assert found is not None
    assert (found.factor, found.fits, found.limit) == (4, True, 0.02)
    assert found.share == pytest.approx(0.01625)
    assert ticks_of(run.read, "grad_norm", 200) == list(range(200, 300, 4))
    assert ticks_of(run.read, "activation_variance", 200) == list(range(200, 300, 20))
    assert "overhead: 1.6% of a step, limit 2%, sampling every 4th time" in str(run.guard.summary())
    assert run.guard.summary().actions["alert"] == {"info": 2}


def test_what_a_reflex_reads_is_never_thinned() -> None:
    """Neither is the loss; that nothing else is left is said once, and the guard goes on."""
    run = Run({"nonfinite_params": 0.5, "grad_norm": 0.5}).train(500)
    assert ticks_of(run.read, "nonfinite_params") == list(range(500))
    assert ticks_of(run.read, "loss") == list(range(500))
    assert ticks_of(run.read, "grad_norm", 400) == list(range(400, 500, 16))
    assert sum("no more can be thinned" in note for note in run.notes) == 1
    found = run.guard.overhead
    assert found is not None
    assert (found.factor, found.fits) == (16, False)
    assert "cannot be kept" in str(run.guard.summary())
    run.train(1, lambda _: math.nan)
    assert [record.outcome for record in run.guard.interventions if record.action == "skip"] == ["granted"]


def test_when_it_is_cheap_again_it_comes_back_step_by_step() -> None:
    run = Run(dict(DEAR)).train(300)
    run.costs.update(dict.fromkeys(run.costs, 1e-5))
    run.train(1_500)
    assert [note.rpartition(": ")[2] for note in run.notes[2:]] == [
        "signals are sampled every 2nd time",
        "signals are sampled as the policy says",
    ]
    came = [record.tick for record in run.guard.interventions][2:]
    assert came[0] >= 300 + 10 * 50 - 50
    assert came[1] - came[0] >= 500
    assert ticks_of(run.read, "grad_norm", 1_700) == list(range(1_700, 1_800))


def test_a_guard_that_had_to_thin_again_waits_longer_before_it_comes_back() -> None:
    run, came = Run(dict(DEAR)), []
    for _ in range(3):
        run.costs.update(DEAR)
        run.train(300)
        run.costs.update(dict.fromkeys(DEAR, 1e-5))
        began = run.guard.tick
        while run.guard.overhead.factor == 4:  # type: ignore[union-attr]
            run.train(50)
        came.append(run.guard.tick - began)
    assert came[1] > 1.5 * came[0]
    assert came[2] > 1.5 * came[1]


def test_a_stall_is_no_reason_to_thin() -> None:
    """One tick in ten takes a hundred times as long, as where the machine does something else meanwhile."""
    run = Run({"grad_norm": 0.01})
    for tick in range(400):
        run.costs["grad_norm"] = 1.0 if tick % 10 == 3 else 0.01
        run.train(1)
    assert not run.notes


def test_dear_snapshots_are_taken_more_rarely_within_what_a_rollback_needs() -> None:
    run = Run({}, snapshot=1.0).train(400)
    bound = slack(run.guard.policy)
    assert bound is not None
    assert [note.rpartition(": ")[2] for note in run.notes] == [
        "snapshots are taken every 8 steps",
        "snapshots are taken every 16 steps",
        "snapshots are taken every 25 steps",
        "no more can be thinned without taking from protection",
    ]
    found = run.guard.overhead
    assert found is not None
    assert found.snapshot_every == bound.every == 25
    taken = [one.tick for one in run.guard._parts.session.schedule.taken]  # type: ignore[union-attr]
    assert taken[1] - taken[0] == 25


def test_snapshots_come_back_too() -> None:
    run = Run({}, snapshot=0.3).train(200)
    assert run.guard.overhead.snapshot_every == 16  # type: ignore[union-attr]
    run.snapshot = 1e-4
    run.train(1_600)
    assert run.guard.overhead.snapshot_every == 4  # type: ignore[union-attr]


def test_a_shadow_measures_and_thins_as_a_guard_that_acts() -> None:
    assert Run(DEAR, mode="shadow").train(300).notes == Run(DEAR).train(300).notes


def test_without_the_limit_nothing_is_measured() -> None:
    run = Run(DEAR, FREE).train(3)
    assert run.guard.overhead is None
    assert run.guard._parts.thinning is None
    assert "thinning" not in run.guard.state_dict()
    assert "overhead" not in str(run.guard.summary())


def test_decisions_follow_from_the_readings_alone() -> None:
    """Where nothing had to be thinned, a guard that measures itself is in the same state as one that does not."""
    losses = {7: math.nan, 30: 1e9, 31: math.inf}
    states = []
    for text in (POLICY, FREE):
        run = Run({}, text).train(120, losses.get)
        state = run.guard.state_dict()
        states.append({name: repr(state[name]) for name in ("session", "collector", "risks")})
    assert states[0] == states[1]


def test_a_saved_guard_goes_on_as_thinned_as_it_was() -> None:
    one, other = Run(DEAR, snapshot=0.1).train(250), Run(DEAR)
    state = copy.deepcopy(one.guard.state_dict(snapshots=True))
    other.guard.load_state_dict(state)
    assert other.guard.state_dict() == one.guard.state_dict()
    assert other.guard.overhead.factor == one.guard.overhead.factor > 1  # type: ignore[union-attr]
    assert other.guard.overhead.snapshot_every == one.guard.overhead.snapshot_every > 4  # type: ignore[union-attr]
    one.train(40), other.train(40)
    assert other.read == one.read[-40:]


@pytest.mark.parametrize(
    ("path", "bad"),
    [
        (("pace", "factor"), 3),
        (("pace", "factor"), 32),
        (("pace", "factor"), True),
        (("pace", "now"), [1]),
        (("pace", "now"), [16] * 9),
        (("pace", "told"), ["unheard_of"]),
        (("snapshot_every",), 26),
        (("snapshot_every",), -1),
        (("patience",), 10**9),
        (("quiet",), 0.5),
        (("told",), 1),
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(path: tuple[str, ...], bad: object) -> None:
    run = Run(DEAR, snapshot=0.1).train(150)
    before = copy.deepcopy(run.guard.state_dict())
    damaged = copy.deepcopy(before)
    part = damaged["thinning"]
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = bad
    with pytest.raises(StateError):
        run.guard.load_state_dict(damaged)
    assert run.guard.state_dict() == before


def test_a_norm_that_the_loop_tells_keeps_its_cadence() -> None:
    run = Run(DEAR).train(300, grad_norm=1.0)
    assert run.guard.overhead.factor > 1  # type: ignore[union-attr]
    assert ticks_of(run.read, "grad_norm", 200) == list(range(200, 300))


def test_one_of_several_processes_measures_and_does_not_thin() -> None:
    run = Run(DEAR)
    run.guard._parts.thinning.alone = lambda: False  # type: ignore[union-attr]
    run.train(300)
    assert len(run.notes) == 1
    assert run.notes[0].startswith("the guard takes 6.5% of a step, its limit is 2%: nothing is thinned in a run of")
    assert (run.guard.overhead.factor, run.guard.overhead.fits) == (1, False)  # type: ignore[union-attr]


def test_what_the_loop_does_between_two_steps_is_not_the_guards() -> None:
    """An evaluation now and then makes no step longer: the median is of those between."""
    run = Run({"grad_norm": 0.01})
    for step in range(200):
        run.clock.now += 60.0 if step % 20 == 0 else 0.0
        run.train(1)
    assert run.guard.overhead.share == pytest.approx(0.01)  # type: ignore[union-attr]


def test_hooks_of_the_forward_pass_count() -> None:
    clock = Clock()
    watch = Stopwatch(clock)

    def hook() -> None:
        clock.now += 2.0

    with watch:
        watch.timed(hook)()
        clock.now += 1.0
        with watch.resting():
            clock.now += 100.0
    clock.now += 50.0
    watch.timed(hook)()
    with watch.resting():
        clock.now += 100.0
    assert watch.take() == 5.0
    assert watch.take() == 0.0


def test_waiting_for_a_device_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """An accelerator's transfer ends when the run's own work has ended."""
    run = Run({"grad_norm": 0.01})
    unpack = Packet.unpack

    def slow(packet: Packet) -> dict[str, list[float]]:
        run.clock.now += 0.5
        return unpack(packet)

    monkeypatch.setattr(Packet, "on_host", property(lambda _: False))
    monkeypatch.setattr(Packet, "unpack", slow)
    run.train(150)
    assert run.guard.overhead.share == pytest.approx(0.01 / 1.5)  # type: ignore[union-attr]


# Laws


@define(slots=False)
class Bare:
    """The thinning of a policy without a training: what is due costs what a test says."""

    policy: Policy
    limit: float = 0.02
    clock: Clock = field(factory=Clock)

    def __attrs_post_init__(self) -> None:
        self.pace = Pace(wants(self.policy))
        self.meter = Meter(Stopwatch(self.clock))
        self.thinning = Thinning(self.limit, self.pace, self.meter)

    def ticks(self, count: int, cost: Callable[[frozenset[str]], float], begin: int = 0) -> Iterator[frozenset[str]]:
        """Go through some ticks; yield what each reads."""
        for tick in range(begin, begin + count):
            self.meter.lap()
            every = self.pace.every
            with self.meter.watch:
                self.thinning.judge(every)
                self.pace.turn(tick)
                every = self.pace.every
                self.meter.kind = due(every, tick), due(every, tick + 1)
                self.clock.now += cost(self.meter.kind[0])
            self.clock.now += 1.0
            yield self.meter.kind[0]


WATCHED = lbw.load("""lbw 1
policy watched { }
signal a = telemetry.grad_norm
signal b = telemetry.update_ratio { every 3 steps }
signal c = telemetry.param_norm { every 7 steps }
signal d = telemetry.nonfinite_params { every 2 steps }
reflex r { when d > 0 do skip }
alert x info when a > 1 and b > 1 and c > 1 "x"
limits { skip at most 1 in a row, at most 1 per 9 steps  overhead at most 2% }
""")
costs = st.sampled_from((0.0, 1e-4, 0.003, 0.01, 0.03, 0.2))


@settings(max_examples=40, deadline=None)
@given(st.fixed_dictionaries(dict.fromkeys(("grad_norm", "update_ratio", "param_norm", "nonfinite_params"), costs)))
def test_steady_costs_settle_in_bounded_time_and_stay(cost: Mapping[str, float]) -> None:
    """Four doublings at most, one a judgement; then nothing changes any more, and what can be kept is kept."""
    bare = Bare(WATCHED)
    price = lambda keys: sum(cost.get(key, 0.0) for key in keys)  # noqa: E731
    factors = [bare.pace.factor for _ in bare.ticks(1_500, price)]
    assert set(factors[400:]) == {factors[-1]}
    assert factors[:400] == sorted(factors[:400])
    fixed = cost["nonfinite_params"] / 2
    thinned = cost["grad_norm"] + cost["update_ratio"] / 3 + cost["param_norm"] / 7
    least = next((f for f in FACTORS if fixed + thinned / f <= 0.02 * 1.02), 16)
    assert factors[-1] in (least, min(16, 2 * least))
    if fixed + thinned / 16 < 0.019:
        assert bare.thinning.share <= 0.02


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_value_stands_until_the_next_however_the_factor_moves(data: st.DataObject) -> None:
    """A thinned signal is neither missing nor unknown in between, even where a missing reading would be unsafe."""
    signals = "".join(
        f"signal {name} = telemetry.{source} {{ every {data.draw(st.integers(1, 6))} steps  missing unsafe }}\n"
        for name, source in (("a", "grad_norm"), ("b", "update_ratio"), ("c", "param_norm"))
    )
    policy = lbw.load(f'lbw 1\npolicy p {{ }}\n{signals}alert x info when a > 1 and b > 1 and c > 1 "x"\n')
    session, pace = Session(policy), Pace(wants(policy))
    last: dict[str, float] = {}
    moves = data.draw(st.dictionaries(st.integers(1, 150), st.sampled_from(FACTORS), max_size=8))
    for tick in range(160):
        pace.factor = moves.get(tick, pace.factor)
        if pace.turn(tick):
            session.thin(pace.signals)
        sampled = {key: float(tick) for key in due(pace.every, tick)}
        values = by_signal(policy, tick, sampled, pace.signals)
        last |= {name: value for name, value in values.items() if value is not None}
        session.begin(values)
        assert {name: session.machine.evaluator.reading(name) for name in "abc"} == last
        session.decide({})
        session.finish(applied=True)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from((2, 4, 8)), st.lists(st.sampled_from((0.5, 1.0, 2.0, 50.0)), min_size=60, max_size=120))
def test_thinned_is_as_if_every_were_that_much_larger(factor: int, readings: list[float]) -> None:
    """Also for windows, which keep their samples and so span as many more ticks."""
    text = """lbw 1
policy p {{ }}
signal a = telemetry.grad_norm {{ every {} steps  missing hold 3 steps }}
alert x info when a > 2 * median(a, {} steps) for 2 of 3 steps "x"
"""
    policies = (lbw.load(text.format(2, 32)), lbw.load(text.format(2 * factor, 32 * factor)))
    sessions = [Session(policy) for policy in policies]
    sessions[0].thin({"a": factor})
    for tick, value in enumerate(readings):
        found = []
        for session, factors in zip(sessions, ({"a": factor}, None), strict=True):
            session.begin(by_signal(session.policy, tick, {"grad_norm": value}, factors))
            turn = session.decide({})
            session.finish(applied=True)
            found.append((session.machine.evaluator.reading("a"), [message.text for message in turn.decision.messages]))
        assert found[0] == found[1]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_whatever_the_clock_does_the_guard_keeps_to_its_limits(data: st.DataObject) -> None:
    """Time that jumps, stands still, goes back or is no number thins at most, and never what a reflex reads."""
    jumps = data.draw(st.lists(st.floats() | st.sampled_from((0.0, 1.0, -1.0, math.nan, math.inf)), min_size=1))
    broken = data.draw(st.sets(st.integers(0, 139), max_size=40))
    run, moves = Run({}), iter(())

    def clock() -> float:
        nonlocal moves
        step = next(moves, None)
        if step is None:
            moves = iter(jumps)
            step = next(moves)
        run.clock.now = step if data_resets else run.clock.now + step
        return run.clock.now

    data_resets = data.draw(st.booleans())
    run.guard._parts.thinning.meter.watch.clock = clock  # type: ignore[union-attr]
    skipped = []
    for tick in range(140):
        run.train(1, lambda tick: math.nan if tick in broken else None)
        assert run.guard.overhead.factor in FACTORS  # type: ignore[union-attr]
        skipped.append(run.guard.progress)
    assert ticks_of(run.read, "nonfinite_params") == list(range(140))
    left_out = [tick for tick in range(140) if skipped[tick] == (skipped[tick - 1] if tick else 0)]
    assert all(sum(begin <= tick < begin + 100 for tick in left_out) <= 10 for begin in range(140))
    assert all(not set(range(begin, begin + 4)) <= set(left_out) for begin in range(140))


def test_both_tiers_thin_alike_and_the_device_goes_on_without_waiting() -> None:
    """What is thinned is no present reading of a reflex, so a device decides as before, and is still believed."""
    text = POLICY.replace("or high > 0  do", "or grad > 1e9  do")
    runs = [Run(DEAR, text, tier=tier).train(700) for tier in ("host", "device")]
    host, device = (run.guard for run in runs)
    device.catch_up()
    assert device.tier == "device"
    assert [run.guard.overhead.factor for run in runs if run.guard.overhead] == [16, 16]
    assert [note.partition(": ")[2] for note in runs[0].notes] == [note.partition(": ")[2] for note in runs[1].notes]
    assert host.progress == device.progress == 700
