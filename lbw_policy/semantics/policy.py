"""The checked policy: the contract between the language and the runtime. Frozen, plain, without text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import field, frozen

from lbw_policy.diagnostics import Diagnostic
from lbw_policy.semantics.expressions import Condition, Expression, Number
from lbw_policy.semantics.signals import key

if TYPE_CHECKING:
    from lbw_policy.semantics.trial import Trial


@frozen
class Place:
    """Where a rule stands: file name and 1-based line."""

    path: str
    line: int


@frozen
class Missing:
    """What an absent reading of a signal means.

    `hold`: the last value stands for `steps` ticks, then the reading is unknown (NaN).
    `skip`: the signal is not ready. `unsafe`: the reading is unknown at once.
    """

    kind: str = "skip"
    steps: int = 0


@frozen
class Signal:
    """A named reading: `source` is a built-in signal's name, or the user's own where `observed`.

    `group` names the layer group it is taken over, "" for all layers.
    """

    name: str
    source: str
    observed: bool = False
    every: int = 1
    missing: Missing = Missing()
    group: str = ""

    @property
    def key(self) -> str:
        """What its readings are called: its source, and the group that this is taken over."""
        return key(self.source, self.group)


@frozen
class Budget:
    """At most `count` in any `window` ticks."""

    count: int
    window: int


@frozen
class Risk:
    """An online model's duties: what it predicts, from what, and when it may be believed.

    `alarm` is the budget of false alarms that sets where `alarm` begins, as a rate per tick.
    `fallback` is what the probability reads until, or whenever, the model is not trusted.
    """

    name: str
    horizon: int
    features: tuple[tuple[str, Number], ...]
    standard: bool
    model: str
    alarm: float
    trust_after: int
    fallback: float


@frozen
class Acting:
    """What every action has: `otherwise` is asked for in the same tick where the limiter refuses it."""

    otherwise: Action | None = field(default=None, kw_only=True)


@frozen
class Skip(Acting):
    """Leave this update out: weights and optimizer state stay as they are."""


@frozen
class Clip(Acting):
    """Scale all gradients down so that their L2 norm is at most `to`; with `layers`, that of each layer by itself."""

    to: Number
    layers: bool = False


@frozen
class ScaleLr(Acting):
    """Scale the update by the factor `by`; after the level ends, come back over `restore` ticks."""

    by: Number
    restore: int = 1


@frozen
class Rollback(Acting):
    """Restore the newest healthy snapshot no more than `at_most` steps below the high-water mark."""

    at_most: int


@frozen
class Freeze(Acting):
    """Hold still the given share of layers, those with the highest `by` first.

    `group` names the layer group they are chosen from; the share counts all layers all the same.
    """

    share: float
    by: str
    group: str = ""


@frozen
class ResetMoments(Acting):
    """Set the optimizer's running moments to zero, as at the start of a run."""


@frozen
class Checkpoint(Acting):
    """Call the function given to `attach(checkpoint=...)`."""


@frozen
class Halt(Acting):
    """Stop the run by raising `Halted` from `optimizer.step()`."""


@frozen
class Custom(Acting):
    """Do what the plugin action `name` does, with an amount if it takes one."""

    name: str
    amount: Number | None = None


Action = Skip | Clip | ScaleLr | Rollback | Freeze | ResetMoments | Checkpoint | Halt | Custom

ACTION_NAMES: Mapping[type, str] = {
    Skip: "skip",
    Clip: "clip",
    ScaleLr: "scale_lr",
    Rollback: "rollback",
    Freeze: "freeze",
    ResetMoments: "reset_moments",
    Checkpoint: "checkpoint",
    Halt: "halt",
}
"""The built-in actions; `name_of` knows those of plugins too."""


NO_ACTION = frozenset({"intervene", "overhead"})
"""The lines of `limits` that name no action."""


def name_of(action: Action) -> str:
    """Return the name an action is written and limited by."""
    return action.name if isinstance(action, Custom) else ACTION_NAMES[type(action)]


@frozen
class Trigger:
    """A condition that must hold in `count` of the last `window` ticks."""

    condition: Condition
    count: int = 1
    window: int = 1


@frozen
class Periodic:
    """An action repeated every `every` ticks spent in a level."""

    every: int
    action: Action


@frozen
class Reflex:
    """A rule without memory: when the condition is true or unknown, act before this update."""

    name: str
    condition: Condition
    actions: tuple[Action, ...]
    place: Place
    id: str = ""
    why: str = ""

    @property
    def rule(self) -> str:
        """What records call it: its `@id`, or its kind and name."""
        return self.id or f"reflex {self.name}"


@frozen
class Level:
    """A rung of the escalation ladder; the first one has no triggers and no actions.

    `settles` is after how many ticks in it its ticks count as calm, None if they never do.
    """

    name: str
    enter: Trigger | None = None
    leave: Trigger | None = None
    stay: int | None = None
    cooldown: int = 0
    settles: int | None = None
    actions: tuple[Action, ...] = ()
    periodic: tuple[Periodic, ...] = ()
    place: Place | None = None
    id: str = ""
    why: str = ""

    @property
    def rule(self) -> str:
        """What records call it: its `@id`, or its kind and name."""
        return self.id or f"level {self.name}"


@frozen
class Alert:
    """A message for people, sent when the trigger begins to hold; it changes nothing in the run."""

    name: str
    severity: str
    trigger: Trigger
    message: str
    values: tuple[tuple[str, Number], ...]
    place: Place
    id: str = ""
    why: str = ""

    @property
    def rule(self) -> str:
        """What records call it: its `@id`, or its kind and name."""
        return self.id or f"alert {self.name}"


@frozen
class LayerGroup:
    """Layers by the names of their modules: those that a glob matches and no excepted glob does."""

    name: str
    globs: tuple[str, ...]
    excepted: tuple[str, ...] = ()


@frozen
class ScaleLimit:
    """The lr factor stays in `[low, high]`; `low` is the conservative end."""

    low: float
    high: float


@frozen
class SkipLimit:
    """At most `in_a_row` skipped updates without an accepted one between, and a budget."""

    in_a_row: int
    budget: Budget


@frozen
class RollbackLimit:
    """At most `distance` steps below the high-water mark, and a budget; two are `spacing` ticks apart at least."""

    distance: int
    budget: Budget
    spacing: int = 0


@frozen
class FreezeLimit:
    """At most `share` of the layers, for at most `duration` ticks without a pause of as many."""

    share: float
    duration: int


@frozen
class CustomLimit:
    """A plugin action's amount stays in `[low, high]` (`low` is the conservative end), and a budget.

    Both ends are None where the action takes no amount.
    """

    name: str
    low: float | None
    high: float | None
    budget: Budget


@frozen
class Limits:
    """What may be granted at most; None means that the action is not allowed at all.

    `overhead` bounds no action: it is the most of a step's time that the guard itself may take, None where it does
    not look after that.
    """

    scale_lr: ScaleLimit | None = None
    skip: SkipLimit | None = None
    clip: Budget | None = None
    rollback: RollbackLimit | None = None
    freeze: FreezeLimit | None = None
    reset_moments: Budget | None = None
    checkpoint: Budget | None = None
    intervene: Budget | None = None
    overhead: float | None = None
    halt: bool = True
    custom: tuple[CustomLimit, ...] = ()


@frozen
class Param:
    """A number that may be set when the policy is loaded, inside `[low, high]`."""

    name: str
    low: float
    high: float
    value: float


@frozen
class Policy:
    """A policy that passed the checker.

    `digest` is the SHA-256 of the text and the parameter values; it names the policy in records
    and saved states. `quarantine` is how many ticks in a row may be kept from the baselines.
    `warnings` are findings that did not keep it from loading; `names` are its `let`s, for people who read it,
    and `tests` the file's own tests.
    """

    name: str
    doc: str
    digest: str
    params: tuple[Param, ...]
    signals: tuple[Signal, ...]
    risks: tuple[Risk, ...]
    reflexes: tuple[Reflex, ...]
    levels: tuple[Level, ...]
    alerts: tuple[Alert, ...]
    limits: Limits
    quarantine: int = 256
    snapshot_every: int | None = None
    on_failure: str = "continue"
    layers: tuple[LayerGroup, ...] = ()
    warnings: tuple[Diagnostic, ...] = field(default=(), eq=False, repr=False)
    tests: tuple[Trial, ...] = field(default=(), eq=False, repr=False)
    names: tuple[tuple[str, Expression], ...] = field(default=(), eq=False, repr=False)
    parent: Limits | None = field(default=None, eq=False, repr=False)
    """The limits of the policy that this one extends."""

    def reads(self, source: str) -> bool:
        """Tell whether any signal reads the given built-in source."""
        return any(signal.source == source and not signal.observed for signal in self.signals)
