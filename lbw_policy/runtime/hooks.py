"""Calls the guard around each `optimizer.step()`, once, whatever way the step is called."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
from torch.optim import Optimizer

Hook = TypeVar("Hook", bound=Callable[..., Any])
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Watcher(Protocol):
    """What is called around an update."""

    def before_update(self) -> None:
        """Gradients are in place; the update follows."""

    def after_update(self) -> None:
        """The update has happened."""

    def abandon(self) -> None:
        """The update failed with an exception: leave nothing of the guard's behind."""

    def closure_loss(self, loss: object) -> None:
        """A closure returned this loss."""

    def gradients_again(self) -> None:
        """A closure has run again within the same step: there are new gradients."""


class Hooks:
    """Step hooks of one optimizer."""

    def __init__(self, optimizer: Optimizer, watcher: Watcher) -> None:
        self._optimizer = optimizer
        self._watcher = watcher
        self._inside = 0
        self._handles = (
            optimizer.register_step_pre_hook(_untraced(self._before)),
            optimizer.register_step_post_hook(_untraced(self._after)),
            optimizer.register_state_dict_pre_hook(lambda _: self.settle()),
        )

    def remove(self) -> None:
        """Take the hooks off the optimizer."""
        for handle in self._handles:
            handle.remove()

    def settle(self) -> None:
        """End a tick whose step raised, for post hooks do not run then; does nothing while a step is in progress."""
        if self._inside and not _calls_in_progress(self._optimizer):
            self._inside = 0
            self._watcher.abandon()

    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments | None:
        if self._inside and _calls_in_progress(optimizer) > 1:
            # A subclass whose step calls its parent's fires every hook twice.
            self._inside += 1
            return None
        if self._inside:
            self._watcher.abandon()  # post hooks do not run where a step raised
        self._inside = 1
        return self._start(args, kwargs)

    def _start(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments | None:
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._guarded(self._watcher.before_update)
            return None
        # With a closure the gradients of this step do not exist yet: decide when it has run.
        wrapped = self._wrap(closure)
        if "closure" in kwargs:
            return args, {**kwargs, "closure": wrapped}
        return (args[0], wrapped, *args[2:]), kwargs

    def _wrap(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        decided = False

        def closure_then_guard() -> object:
            nonlocal decided
            with torch.enable_grad():
                loss = closure()
            if decided:  # a step is one tick, however often the optimizer evaluates the closure in it
                self._watcher.gradients_again()
                return loss
            decided = True
            self._watcher.closure_loss(loss)
            self._guarded(self._watcher.before_update)
            return loss

        return closure_then_guard

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException:
            self._inside = 0
            raise

    def _after(self, _optimizer: Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        self._inside -= 1
        if self._inside == 0:
            self._watcher.after_update()
        self._inside = max(0, self._inside)


def _untraced(hook: Hook) -> Hook:
    """Keep a hook out of compiled graphs: it runs between them as it is."""
    disable: Callable[[Hook], Hook] = torch.compiler.disable
    return disable(hook)


def _calls_in_progress(optimizer: Optimizer) -> int:
    """Count the hooked `step` calls of this optimizer on the stack: 2 means that one calls its parent's, 0 none."""
    found, frame = 0, sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        hooked = frame.f_code.co_qualname == "Optimizer.profile_hook_step.<locals>.wrapper"
        found += hooked and frame.f_locals.get("self") is optimizer
    return found
