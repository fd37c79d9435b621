"""Numbers on a command line, as the types of arguments."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return the type of whole numbers in a range; `_` may stand between digits."""

    def read(text: str) -> int:
        digits = text.replace("_", "")
        if not (digits.isascii() and digits.isdecimal()) or not low <= int(digits[:20]) <= high:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high}, found `{text}`")
        return int(digits)

    return read


def real(low: float, high: float, what: str) -> Callable[[str], float]:
    """Return the type of numbers in a range, as `0.3` or `30%`; `what` names them in a refusal."""

    def read(text: str) -> float:
        try:
            value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"expected {what}, found `{text}`")
        return value

    return read
