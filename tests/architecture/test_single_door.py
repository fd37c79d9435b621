"""No action reaches the run but through the limiter: by the text of the package, with faults planted to be found."""

from __future__ import annotations

import ast
import inspect
import typing
from pathlib import Path

import pytest

import lbw_policy
from lbw_policy.limits import Allowance, Grant
from lbw_policy.machine.ahead import Answering, Ruling
from lbw_policy.runtime.effects import Effects
from lbw_policy.runtime.plugged import Plugged
from tests.architecture.doors import AHEAD, BY_GRANT, GIVING_BACK, IN_PLACE, findings

PACKAGE = Path(lbw_policy.__file__).parent
EXCEPTED = {
    ("runtime/effects.py", ""): "the hands themselves, which import what acts",
    (
        "runtime/effects.py",
        "Effects._restore",
    ): "puts back, for a grant, a schedule's rates that a rollback would rewind",
    ("runtime/hooks.py", "Hooks.__init__"): "the hooks that `attach` promises",
    ("telemetry/gradients.py", "_alone"): "joins a sparse gradient's double entries when the user's loop clips",
    ("limits/limiter.py", "Limiter._load"): "takes over the limiter's own saved counters",
}
"""Who may, besides `actions` and the own trainings of lab and conformance, and why; by file and function."""


def changes(path: Path) -> set[str]:
    """Return what a file changes in a run that it is not allowed to.

    Telemetry works in place on buffers of its own; a test of runs shows that it touches nothing else.
    """
    name = path.relative_to(PACKAGE).as_posix()
    folder = name.partition("/")[0]
    if folder in ("actions", "lab", "conformance"):
        return set()
    own = {"limits": "makes a grant", "machine": "makes a ruling", "telemetry": IN_PLACE}.get(folder)
    found = [one for one in findings(path.read_text(encoding="utf-8")) if (name, one.where) not in EXCEPTED]
    return {f"{name}:{one.line}: {one.what}" for one in found if own is None or not one.what.startswith(own)}


def test_nothing_outside_of_the_actions_changes_a_run_and_only_the_limits_make_grants() -> None:
    assert not {finding for path in PACKAGE.rglob("*.py") for finding in changes(path)}


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("parameter.grad = None", "sets `.grad`"),
        ("del parameter.grad", "sets `.grad`"),
        ("parameter.grad *= 0.5", "sets `.grad`"),
        ("a, parameter.data = 1, x", "sets `.data`"),
        ("group['lr'] = 0.1", "sets an optimizer's `lr`"),
        ("group['lr'] *= 0.5", "sets an optimizer's `lr`"),
        ("optimizer.param_groups[0][key] = 0.1", "sets an optimizer's state"),
        ("self._optimizer.state[p] = {}", "sets an optimizer's state"),
        ("self._optimizer.state.clear()", "sets an optimizer's state"),
        ("parameter.mul_(0.5)", "changes a tensor by `mul_`"),
        ("torch._foreach_zero_(gradients)", "changes a tensor by `_foreach_zero_`"),
        ("setattr(parameter, 'grad', None)", "sets an attribute of the run by name"),
        ("setattr(group, name, 1)", "sets an attribute by a computed name"),
        ("optimizer.zero_grad()", "calls `zero_grad`"),
        ("self._optimizer.step()", "calls `step`"),
        ("self._optimizer.load_state_dict(state)", "loads the run's state"),
        ("self._parts.effects.snapshots.restore(3)", "restores a snapshot"),
        ("from lbw_policy.actions import reset_moments", "imports `reset_moments`"),
        ("from lbw_policy.actions.gradients import Gradients", "imports `Gradients`"),
        ("Grant(request, Outcome.GRANTED, 2.0)", "makes a grant"),
        ("limits.Grant(request, Outcome.GRANTED)", "makes a grant"),
        ("attrs.evolve(grant, amount=2.0)", "makes a grant"),
        ("Ruling(True, 1.0, 1.0)", "makes a ruling"),
        ("self._parts.effects.act_ahead(turn)", "calls `act_ahead` of the guard's hands without a ruling"),
        ("self._parts.effects.apply(turn.decision.requests)", "calls `apply` of the guard's hands without grants"),
        ("parts.plugged.act([Request('x', 'y')], 3)", "calls `act` of the guard's hands without grants"),
        ("self._parts.effects.burn()", "calls the unknown `burn` of the guard's hands"),
    ],
)
def test_a_planted_fault_is_found(line: str, what: str) -> None:
    source = f"class Guard:\n    def act(self, turn):\n        if turn:\n            {line}\n"

    assert {(one.where, one.what) for one in findings(source)} == {("Guard.act", what)}


@pytest.mark.parametrize(
    "line",
    [
        "norm = parameter.grad.norm()",
        "rate = group['lr']",
        "copy = gradient.mul(2)",
        "state = optimizer.state[parameter]",
        "table['level'] = 3",
        "self.state = 3",
        "self._parts.effects.apply(turn.granted)",
        "self._parts.effects.release()",
    ],
)
def test_reading_and_acting_on_grants_is_no_fault(line: str) -> None:
    assert not findings(f"def read(turn):\n    {line}\n")


def test_every_exception_is_still_needed() -> None:
    seen = {
        (name, one.where)
        for path in PACKAGE.rglob("*.py")
        for name in (path.relative_to(PACKAGE).as_posix(),)
        for one in findings(path.read_text(encoding="utf-8"))
    }

    assert set(EXCEPTED) <= seen


@pytest.mark.parametrize(
    ("owner", "name"), [(Effects, "apply"), (Effects, "choose"), (Effects, "checkpoint"), (Plugged, "act")]
)
def test_the_hands_take_grants_by_their_types(owner: type, name: str) -> None:
    hints = typing.get_type_hints(getattr(owner, name))

    assert typing.get_args(hints["grants"]) == (Grant,)
    assert next(iter(inspect.signature(getattr(owner, name)).parameters.values())).name == "self"


def test_the_hands_have_no_other_public_way_in() -> None:
    public = {name for name, _ in inspect.getmembers(Effects, inspect.isfunction) if not name.startswith("_")}

    assert public == (BY_GRANT | GIVING_BACK | set(AHEAD)) - {"act"}


def test_what_acts_ahead_takes_a_ruling_which_hangs_on_the_limiters_own_allowance() -> None:
    assert typing.get_type_hints(Effects.act_ahead)["ruling"] is Ruling
    assert Answering.__annotations__["allowance"] == Allowance.__name__


def test_only_the_effects_hold_the_acting_objects() -> None:
    """The guard reaches gradients and learning rates through `Effects` only."""
    tree = ast.parse((PACKAGE / "runtime" / "guard.py").read_text(encoding="utf-8"))
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}

    assert not attributes & {"_gradients", "_scale", "grad", "param_groups"}
