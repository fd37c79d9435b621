"""Adds up the time the guard itself takes, wherever in the training step it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, cast

import torch
from attrs import define, field

Hook = TypeVar("Hook", bound=Callable[..., Any])


class Timed(Protocol):
    """Makes of a function one whose time is counted, or leaves it as it is."""

    def __call__(self, hook: Hook, /) -> Hook:
        """Return the function."""


def as_it_is(hook: Hook) -> Hook:
    """Return the function itself: nobody wants to know its time."""
    return hook


@define(eq=False)
class Stopwatch:
    """Seconds spent inside `with`, counted once where one stands inside another.

    It is the host's time. Work that an accelerator still does when the `with` ends is not in it.
    """

    clock: Callable[[], float] = time.perf_counter
    _spent: float = field(init=False, default=0.0)
    _depth: int = field(init=False, default=0)
    _since: float = field(init=False, default=0.0)

    def __enter__(self) -> None:
        if self._depth == 0:
            self._since = self.clock()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._spent += self.clock() - self._since

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Leave out the time of something that is not the guard's own."""
        running, self._depth = self._depth, 0
        if running:
            self._spent += self.clock() - self._since
        try:
            yield
        finally:
            self._depth = running
            if running:
                self._since = self.clock()

    def take(self) -> float:
        """Return the seconds since the last call, and begin anew."""
        spent, self._spent = self._spent, 0.0
        return spent

    def timed(self, hook: Hook) -> Hook:
        """Return a hook of the model's forward pass with its time counted; inside a compiled graph it is not."""

        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the hook has it
            if torch.compiler.is_compiling():
                return hook(*args, **kwargs)
            with self:
                return hook(*args, **kwargs)

        return cast(Hook, call)
