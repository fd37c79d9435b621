"""The largest attention logit of a forward pass, sampled beside the attention itself."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lbw_policy.telemetry.readings import Due, Numbers, Packet, Value
from lbw_policy.telemetry.stopwatch import Timed, as_it_is

ATTENTION = frozenset({"attention_logit_max"})
LOGIT_SAMPLE = 1 << 18
"""Most logits computed for one call of attention, unless one query a head has more."""
_FUSED = "scaled_dot_product"
_SOFTMAX, _SAFE_SOFTMAX = "aten::_softmax", "aten::_safe_softmax"
_PRODUCTS = ("aten::bmm", "aten::baddbmm")


class AttentionLogits:
    """`attention_logit_max`: the largest `scale * q.k` (mask added) that the last training pass met.

    In ticks that report it, operations of the model's forward pass are watched as they are
    dispatched; they run as they are. Beside a fused attention, the logits of the longest queries of
    each head with all keys are computed again, about 2**18 a call: a lower bound, exact where all
    fit. Attention that is written out is read off at its softmax, exactly. Kernels of other packages
    and compiled models are not seen.
    """

    def __init__(self, model: nn.Module, timed: Timed = as_it_is) -> None:
        self.take = timed(self._take)
        """Take note of the largest logit of one attention."""
        self._armed = True
        self._seen = False
        self._peak: torch.Tensor | None = None
        self._mode: _Watching | None = None
        self._watching = contextlib.ExitStack()
        self._problem: str | None = None
        self._told = False
        self._handles = (
            model.register_forward_pre_hook(self._enter, prepend=True),
            model.register_forward_hook(self._leave, always_call=True),
        )

    def measure(self, due: Due, packet: Packet) -> None:
        """Queue the largest logit of what was watched."""
        if due.now & ATTENTION:
            self._seen = self._peak is not None
            if self._peak is not None:
                packet.add("attention", self._peak)
        self._peak, self._armed = None, bool(due.next & ATTENTION) and self._problem is None

    def values(self, numbers: Numbers) -> Mapping[str, Value]:
        """Return the largest logit."""
        return {"attention_logit_max": numbers["attention"][0]} if "attention" in numbers else {}

    def notes(self, due: Due) -> tuple[str, ...]:
        """Return, once, why there is no reading where there should have been one."""
        if self._told or self._seen or not due.now & ATTENTION:
            return ()
        self._told = True
        reason = self._problem or (
            "no attention was seen in the model's forward pass (compiled models and kernels of other packages "
            "cannot be watched)"
        )
        advice = "tell it with `guard.observe(attention_logit_max=...)`"
        return (f"the signal `attention_logit_max` has no reading: {reason}; {advice}",)

    def detach(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def _enter(self, module: nn.Module, _: object) -> None:
        if torch.compiler.is_compiling() or not self._armed or not module.training or self._mode is not None:
            return
        if not _compiled_inside(module):
            self._peak, self._mode = None, _Watching(self)
            self._watching.enter_context(self._mode)

    def _leave(self, *_: object) -> None:
        if not torch.compiler.is_compiling() and self._mode is not None:
            self._mode = None
            self._watching.close()

    def _take(self, logit: Callable[[], torch.Tensor]) -> None:
        # INVARIANT: a forward pass never fails for being watched; the failure becomes a note.
        try:
            found, last = logit().float(), self._peak
            self._peak = found if last is None else torch.maximum(last, found.to(last.device, non_blocking=True))
        except Exception as failure:
            self._problem, self._armed, self._peak = f"{type(failure).__name__}: {failure}", False, None


class _Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's base has no types
    """Lets every operation run as it is, and shows those of attention to a listener."""

    def __init__(self, listener: AttentionLogits) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # likewise
        self._listener = listener
        self._product: tuple[int, torch.Size] | None = None

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        """Run one operation."""
        kwargs = kwargs or {}
        name = func._schema.name
        if _FUSED in name and "backward" not in name:
            names = [argument.name for argument in func._schema.arguments]
            self._listener.take(functools.partial(_fused_logit, dict(zip(names, args, strict=False)) | kwargs))
        elif name == _SAFE_SOFTMAX or (name == _SOFTMAX and self._is_attention(args[0])):
            self._listener.take(functools.partial(torch.amax, args[0]))
        found = func(*args, **kwargs)
        if name in _PRODUCTS:
            self._product = found.data_ptr(), found.shape
        return found

    def _is_attention(self, logits: torch.Tensor) -> bool:
        """Tell attention's softmax from others: it has batch, head, query and key dimensions, or comes from `bmm`."""
        return logits.dim() >= 4 or (logits.data_ptr(), logits.shape) == self._product


def _fused_logit(arguments: Mapping[str, Any]) -> torch.Tensor:
    """Return the largest logit of the longest queries with all keys; each is [batch, heads, length, width]."""
    query, key = arguments["query"], arguments["key"]
    batch, heads, length, width = query.shape
    keys = key.shape[2]
    most = max(1, min(length, LOGIT_SAMPLE // max(1, batch * heads * keys)))
    rows = torch.linalg.vector_norm(query, dim=-1).topk(most, dim=-1).indices[..., None]
    chosen = query.gather(2, rows.expand(-1, -1, -1, width))
    key = key.repeat_interleave(heads // key.shape[1], dim=1)
    logits = (chosen @ key.transpose(-1, -2)).float() * (arguments.get("scale") or 1 / math.sqrt(width))
    mask = arguments.get("attn_mask", arguments.get("attn_bias"))
    if mask is not None:
        logits += mask.expand(batch, heads, length, keys).gather(2, rows.expand(-1, -1, -1, keys))
    if arguments.get("is_causal"):
        logits = logits.masked_fill(torch.arange(keys, device=query.device) > rows, -math.inf)
    largest: torch.Tensor = logits.amax()
    return largest


def _compiled_inside(module: nn.Module) -> bool:
    """Tell whether any part is compiled: watching would make it run uncompiled."""
    # The class of a compiled module is known by its attribute: to import it takes seconds.
    return any(part._compiled_call_impl is not None or hasattr(part, "_orig_mod") for part in module.modules())
