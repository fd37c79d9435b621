"""Real text that every Python has: the source code of its own standard library."""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from attrs import frozen
from torch import Tensor

from lbw_policy.errors import ResourceError

LIMIT = 4_000_000
"""At most this many bytes are read, of the roughly 12 MB there are."""

_ENOUGH = 200_000
_HELD_OUT = 0.05
_LEFT_OUT = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "__pycache__"})
_PROSE = "pydoc_data"


@frozen(eq=False)
class Text:
    """Bytes to learn from and bytes never trained on, each uint8 of shape [n]."""

    train: Tensor
    held_out: Tensor


def library_text(limit: int = LIMIT, folders: Iterable[Path] | None = None, *, prose: bool = True) -> Text:
    """Return the standard library's source text, split into a training and a held-out part.

    Without `prose` the texts of `help()` are left out, which are no source but lie in one large module.
    Some installs ship the standard library compiled only; then the source of torch stands in.

    Raises:
        ResourceError: no folder has enough source text.
    """
    for folder in default_folders() if folders is None else folders:
        raw = _joined(folder, limit, _LEFT_OUT if prose else _LEFT_OUT | {_PROSE})
        if len(raw) >= min(limit, _ENOUGH):
            return split(_bytes(raw))
    raise ResourceError(
        "no Python source text to train on: neither the standard library nor torch has `.py` files here"
    )


def library_prose() -> Tensor | None:
    """Return English prose that most Pythons have, uint8 of shape [n]: what `help()` says; None where it is missing."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return None
    return _bytes("\n".join(topics.values()).encode())


def split(everything: Tensor) -> Text:
    """Return bytes, uint8 of shape [n], split into a training and a held-out part: the last 5 %."""
    cut = len(everything) - int(len(everything) * _HELD_OUT)
    return Text(train=everything[:cut], held_out=everything[cut:])


def default_folders() -> tuple[Path, ...]:
    """Return the folders that are searched for source text, first choice first."""
    return Path(sysconfig.get_path("stdlib")), Path(torch.__file__).parent


def sources(folder: Path, left_out: frozenset[str] = _LEFT_OUT) -> list[Path]:
    """Return the source files below a folder, in an order that depends on their relative paths only.

    The order is by digest, so that any stretch of the text is a fair sample of the library.
    """
    found = (path.relative_to(folder) for path in folder.rglob("*.py"))
    names = sorted((path.as_posix() for path in found if not left_out & set(path.parts)), key=_digest)
    return [folder / name for name in names]


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _contents(folder: Path, left_out: frozenset[str]) -> Iterator[bytes]:
    for path in sources(folder, left_out):
        try:
            yield path.read_bytes()
        except OSError:
            continue


def _joined(folder: Path, limit: int, left_out: frozenset[str]) -> bytes:
    joined = bytearray()
    for content in _contents(folder, left_out):
        joined += content
        if len(joined) >= limit:
            break
    return bytes(joined[:limit])


def _bytes(raw: bytes) -> Tensor:
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8)
