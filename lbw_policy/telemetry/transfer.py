"""Numbers on their way from the device to the host. The branch for CUDA has not been run: no GPU was at hand.

It stands on what torch documents: a copy into pinned memory with `non_blocking=True` is ordered by the stream it is
made on, and an event recorded after it is done once the copy is; waiting for that event waits for nothing queued
later. `torch.cuda.set_sync_debug_mode("error")` lets both pass.
"""

from __future__ import annotations

import torch
from attrs import field, frozen


@frozen(eq=False)
class Transfer:
    """A flat tensor that crosses to the host while the host goes on; made right behind what computes it."""

    _copy: torch.Tensor
    _arrived: torch.cuda.Event | None = field(default=None)

    @classmethod
    def of(cls, flat: torch.Tensor) -> Transfer:
        """Start the transfer; the tensor may be used again at once."""
        if flat.device.type != "cuda":
            return cls(flat.clone())
        pinned = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=True)
        pinned.copy_(flat, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch has no types here
        event.record(torch.cuda.current_stream(flat.device))
        return cls(pinned, event)

    @property
    def on_host(self) -> bool:
        """Whether it comes from the host itself, so that there is nothing to wait for."""
        return self._arrived is None

    def numbers(self) -> list[float]:
        """Return the numbers, waiting for them if they are not there yet."""
        if self._arrived is not None:
            self._arrived.synchronize()
        found: list[float] = self._copy.tolist()
        return found
