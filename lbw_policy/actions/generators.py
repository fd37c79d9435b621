"""The state of the random number generators, for runs that want it rolled back too."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch


class Generators:
    """Python's, NumPy's (if it is loaded) and torch's global generators, as plain data and tensors."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each."""
        version, numbers, gauss = random.getstate()
        found: dict[str, Any] = {"python": [version, list(numbers), gauss], "torch": torch.get_rng_state()}
        begun: Callable[[], bool] = torch.cuda.is_initialized  # asking would begin it
        if begun():
            found["cuda"] = torch.cuda.get_rng_state_all()
        if "numpy" in sys.modules:
            name, keys, *rest = sys.modules["numpy"].random.get_state()
            found["numpy"] = [name, [int(key) for key in keys], *rest]
        return found

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set each to its saved state."""
        version, numbers, gauss = state["python"]
        random.setstate((version, tuple(numbers), gauss))
        torch.set_rng_state(state["torch"])
        if "cuda" in state:
            torch.cuda.set_rng_state_all(state["cuda"])
        if "numpy" in state and "numpy" in sys.modules:
            name, keys, *rest = state["numpy"]
            sys.modules["numpy"].random.set_state((name, keys, *rest))
