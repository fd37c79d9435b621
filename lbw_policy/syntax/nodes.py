"""The tree of a policy text: frozen nodes, each with the span it was read from."""

from __future__ import annotations

from attrs import frozen

from lbw_policy.diagnostics import Span


@frozen
class Word:
    """A name as written."""

    text: str
    span: Span


@frozen
class Number:
    """A literal: `2.5`, `30%` (value 0.3, `percent`) or `20 steps` (`steps`)."""

    value: float
    span: Span
    percent: bool = False
    steps: bool = False


@frozen
class Reference:
    """A dotted name such as `jump` or `divergence.alarm`."""

    parts: tuple[Word, ...]
    span: Span

    @property
    def text(self) -> str:
        """The name as written."""
        return ".".join(word.text for word in self.parts)


@frozen
class Call:
    """A function applied to arguments."""

    function: Word
    arguments: tuple[Expression, ...]
    span: Span


@frozen
class Unary:
    """`-x` or `not x`."""

    op: str
    operand: Expression
    span: Span


@frozen
class Binary:
    """`left op right`; op is arithmetic, a comparison, `and` or `or`."""

    op: str
    left: Expression
    right: Expression
    span: Span


@frozen
class Broken:
    """An expression the parser has already reported; later stages stay silent about it."""

    span: Span


Expression = Number | Reference | Call | Unary | Binary | Broken
Duration = Number | Reference


@frozen
class Note:
    """`@NAME("text")` before a statement or a clause."""

    name: Word
    text: Word
    span: Span


@frozen
class Hold:
    """`for COUNT of WINDOW`; without a count the condition must hold throughout."""

    count: Number | None
    window: Duration
    span: Span


@frozen
class Setting:
    """A clause with one value: `doc`, `every`, `stay`, `horizon`, `model`, ...; `name` tells which."""

    name: str
    value: Word | Number | Reference | None
    span: Span
    notes: tuple[Note, ...] = ()


@frozen
class Condition:
    """`enter when ...` or `leave when ...`, with its hold."""

    name: str
    expression: Expression
    hold: Hold | None
    span: Span
    notes: tuple[Note, ...] = ()


@frozen
class Features:
    """`features a, b, ...` of a risk block."""

    items: tuple[Expression, ...]
    span: Span
    name: str = "features"


@frozen
class Rate:
    """`alarm at most COUNT false per WINDOW`, or a budget `at most COUNT per WINDOW`."""

    count: Number
    window: Duration
    span: Span
    name: str = "alarm"


@frozen
class Do:
    """An action asked for; `value` is its amount, `by` and `group` the layers of `freeze`, `layers` a clip of each.

    A plugin's action has the plugin's own name. `otherwise` has what `else` declares, in order.
    """

    name: str
    span: Span
    value: Expression | None = None
    restore: Duration | None = None
    by: Word | None = None
    group: Word | None = None
    notes: tuple[Note, ...] = ()
    otherwise: tuple[Do, ...] = ()
    layers: bool = False

    @property
    def whole(self) -> Span:
        """The characters of the action and all that may be done instead."""
        return self.span.join(self.otherwise[-1].span) if self.otherwise else self.span


@frozen
class Each:
    """`each N steps do ...`."""

    every: Duration
    action: Do
    span: Span
    notes: tuple[Note, ...] = ()


@frozen
class Limit:
    """One line of `limits`: the values in the order they are written, and the budget.

    `spacing` is the least time between two rollbacks, None where it is not given.
    """

    name: str
    values: tuple[Expression, ...]
    budget: Rate | None
    span: Span
    notes: tuple[Note, ...] = ()
    spacing: Duration | None = None


@frozen
class Policy:
    """`policy NAME { ... }`."""

    name: Word
    clauses: tuple[Setting, ...]
    span: Span
    notes: tuple[Note, ...] = ()


@frozen
class Param:
    """`param NAME : UNIT in [LOW, HIGH] = VALUE`."""

    name: Word
    unit: Word
    low: Expression
    high: Expression
    value: Expression
    span: Span
    notes: tuple[Note, ...] = ()


@frozen
class Signal:
    """`signal NAME = telemetry.SOURCE of GROUP { ... }`; without a `group` it is taken over all layers."""

    name: Word
    source: Reference
    clauses: tuple[Setting, ...]
    span: Span
    notes: tuple[Note, ...] = ()
    group: Word | None = None


@frozen
class Let:
    """`let NAME = EXPRESSION`."""

    name: Word
    expression: Expression
    span: Span
    notes: tuple[Note, ...] = ()


@frozen
class Risk:
    """`risk NAME { ... }`."""

    name: Word
    clauses: tuple[Setting | Features | Rate, ...]
    span: Span
    notes: tuple[Note, ...] = ()


@frozen
class Reflex:
    """`reflex NAME { when CONDITION do ... }`."""

    name: Word
    condition: Expression
    actions: tuple[Do, ...]
    span: Span
    notes: tuple[Note, ...] = ()


@frozen
class Levels:
    """`levels normal -> caution -> ...`."""

    names: tuple[Word, ...]
    span: Span
    notes: tuple[Note, ...] = ()


@frozen
class Level:
    """`level NAME { ... }`."""

    name: Word
    clauses: tuple[Condition | Setting | Do | Each, ...]
    span: Span
    notes: tuple[Note, ...] = ()


@frozen
class Limits:
    """`limits { ... }`."""

    entries: tuple[Limit, ...]
    span: Span
    notes: tuple[Note, ...] = ()


@frozen
class Alert:
    """`alert NAME SEVERITY when CONDITION "message"`."""

    name: Word
    severity: Word
    expression: Expression
    hold: Hold | None
    message: Word
    span: Span
    notes: tuple[Note, ...] = ()


@frozen
class Import:
    """`import "PATH"`: declarations of another file."""

    path: Word
    span: Span
    notes: tuple[Note, ...] = ()


@frozen
class Layers:
    """`layers NAME = "GLOB", ... except "GLOB", ...`."""

    name: Word
    globs: tuple[Word, ...]
    excepted: tuple[Word, ...]
    span: Span
    notes: tuple[Note, ...] = ()


@frozen
class Require:
    """`require CONDITION else ...`: what to do where the condition does not hold."""

    expression: Expression
    hold: Hold | None
    otherwise: Do | Otherwise
    span: Span
    notes: tuple[Note, ...] = ()


@frozen
class Otherwise:
    """`else alert [SEVERITY] ["MESSAGE"]`."""

    severity: Word | None
    message: Word | None
    span: Span


@frozen
class Sample:
    """A stretch of a test's series: `kind` is `value`, `missing`, `ramp` or `noise`; `repeat` its length.

    `values` has the value, the ramp's two ends, or the noise's mean and spread; `seed` is the noise's.
    """

    kind: str
    values: tuple[float, ...]
    repeat: int
    span: Span
    seed: int = 0


@frozen
class Given:
    """`given NAME = SERIES`."""

    name: Reference
    series: tuple[Sample, ...]
    span: Span


@frozen
class Subject:
    """What a test counts: an action (`kind` is `action`), a reflex or an alert."""

    kind: str
    name: Word
    span: Span


@frozen
class Moment:
    """When an expectation holds: `throughout`, `at` a step, or `within` steps after a step."""

    kind: str
    span: Span
    step: int = 0
    within: Duration | None = None


@frozen
class Expect:
    """One expectation of a test.

    `kind` is `count` (the subject happens between `least` and `most` times; None: no bound),
    `level` (the level is `word` at the moment) or `value` (`word op value` at the moment).
    """

    kind: str
    span: Span
    subject: Subject | None = None
    least: int | None = None
    most: int | None = None
    word: Word | None = None
    op: str = ""
    value: float = 0.0
    moment: Moment | None = None


@frozen
class Test:
    """`test "NAME" { given ... expect ... }`."""

    name: Word
    clauses: tuple[Given | Expect, ...]
    span: Span
    notes: tuple[Note, ...] = ()


@frozen
class Edition:
    """`lbw 1`."""

    number: Number
    span: Span


Statement = (
    Import | Policy | Param | Signal | Layers | Let | Risk | Reflex | Levels | Level | Limits | Require | Alert | Test
)


@frozen
class Tree:
    """A whole text: its edition line and its statements in order."""

    edition: Edition | None
    statements: tuple[Statement, ...]
