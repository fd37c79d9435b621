"""What is to be proved as SMT-LIB files, one an obligation, for any solver that reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from lbw_policy.cli.certificates import Unusable
from lbw_policy.semantics import Policy
from lbw_policy.verify.promise import Promise
from lbw_policy.verify.proving import promises
from lbw_policy.version import __version__


def write_scripts(folder: Path, policies: Sequence[Policy]) -> int:
    """Write `FOLDER/POLICY/NNN-PROMISE-....smt2` for every obligation; return how many. Raises Unusable."""
    names = [policy.name for policy in policies]
    if len(set(names)) < len(names):
        raise Unusable("two of the policies have one name: write their scripts to folders of their own")
    try:
        return sum(_write(folder / policy.name, policy) for policy in policies)
    except (OSError, ValueError) as error:
        reason = ((error.strerror if isinstance(error, OSError) else "") or str(error)).lower()
        raise Unusable(f"cannot write to `{folder}`: {reason}") from error


def _write(folder: Path, policy: Policy) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise Unusable(f"`{folder}` is not empty: scripts of before would be taken for those of now")
    count = 0
    for count, (name, text) in enumerate(_scripts(policy), start=1):
        (folder / f"{count:03}-{name}.smt2").write_text(text, encoding="utf-8")
    return count


def _scripts(policy: Policy) -> Iterator[tuple[str, str]]:
    """Yield a file's name and its content for each obligation of each promise."""
    for promise in promises(policy):
        for one in promise.everything():
            words = f"{promise.claim.promise}-{promise.claim.about}-{one.name}"
            yield re.sub(r"[^A-Za-z0-9_]+", "-", words).strip("-")[:120], _headed(policy, promise, one.name, one.script)


def _headed(policy: Policy, promise: Promise, name: str, script: str) -> str:
    claim = promise.claim
    about = f", {claim.about}" if claim.about else ""
    head = (
        f"lbw_policy {__version__}, policy {policy.name}, digest {policy.digest}",
        f"{claim.promise}{about}: {claim.sentence}",
        f"{name}: proved by the answer `unsat`",
    )
    return "".join(f"; {' '.join(line.split())}\n" for line in head) + f"(set-logic ALL)\n{_plain(script)}"


def _plain(script: str) -> str:
    """Return a script without names that begin with a dot, which SMT-LIB keeps for solvers; cvc5 refuses them."""
    return re.sub(r"\|\.(\d+)\|", r"|part \1|", script)
