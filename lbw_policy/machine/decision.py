"""What one tick decided."""

from __future__ import annotations

from attrs import frozen

from lbw_policy.limits.requests import Request


@frozen
class Message:
    """An alert that began to hold."""

    alert: str
    severity: str
    text: str
    rule: str


@frozen
class Decision:
    """The outcome of one tick: where the ladder stands, what is asked for, and why.

    `fired` has the reflexes whose condition was true or unknown. A tick that is `quarantined`
    does not teach the baselines.
    """

    tick: int
    previous: str
    level: str
    requests: tuple[Request, ...]
    fired: tuple[str, ...]
    messages: tuple[Message, ...]
    quarantined: bool
