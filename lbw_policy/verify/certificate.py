"""What was proved of a policy, as plain JSON that anyone can check again: its limits, promises and obligations.

A certificate is believed in nothing: `verify` rebuilds every obligation from the policy, compares, and proves again.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import asdict

from lbw_policy.claims import Claim, Result
from lbw_policy.semantics import policy as p
from lbw_policy.verify import solver
from lbw_policy.verify.promise import Promise
from lbw_policy.verify.proving import SECONDS, firing, promises, prove
from lbw_policy.verify.shapes import STATUSES, shape_faults
from lbw_policy.verify.wording import worded
from lbw_policy.version import __version__

FORMAT = 1


def certificate(policy: p.Policy, results: Sequence[Result]) -> dict[str, Any]:
    """Return what was found out about a policy as plain data for `json.dump`, sealed with a digest of it all."""
    known = _entries(policy)
    entries = [{**known[_key(one.claim)], "status": one.status.value, "how": one.how} for one in results]
    content = {**_head(policy), "promises": entries}
    return {**content, "seal": _seal(content)}


def _head(policy: p.Policy) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "package": __version__,
        "policy": policy.name,
        "digest": policy.digest,
        "params": {param.name: param.value for param in policy.params},
        "limits": json.loads(json.dumps(asdict(policy.limits))),
        "solver": solver.version() or "none",
    }


def _key(claim: Claim) -> tuple[str, str]:
    return claim.promise, claim.about


def _entries(policy: p.Policy) -> dict[tuple[str, str], dict[str, Any]]:
    """Return what a certificate has to say of each promise, whatever was found out about it."""
    made = [(one.claim, _proof(one)) for one in promises(policy)]
    found = [*made, *((claim, _proof(None)) for claim in firing(policy))]
    return {_key(claim): {**_said(claim), **proof} for claim, proof in found}


def _said(claim: Claim) -> dict[str, Any]:
    bound = None if claim.bound is None else float(claim.bound)
    return {
        "promise": claim.promise,
        "about": claim.about,
        "sentence": claim.sentence,
        "bound": bound,
        "unit": claim.unit,
    }


def _proof(promise: Promise | None) -> dict[str, Any]:
    """Return the invariants as text, and every obligation as its name and the SHA-256 of its script."""
    if promise is None:
        return {"invariants": [], "obligations": []}
    invariants = [worded(one) for each in promise.inductions for one in each.invariants]
    hashes = [[one.name, hashlib.sha256(one.script.encode()).hexdigest()] for one in promise.everything()]
    return {"invariants": invariants, "obligations": hashes}


def _seal(content: Mapping[str, Any]) -> str:
    text = json.dumps({name: content[name] for name in content if name != "seal"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


# Verification


def verify(policy: p.Policy, found: object, *, seconds: float = SECONDS) -> list[str]:
    """Return why a certificate does not hold of a policy, a reason each; none means that it does.

    What it says is compared with what follows from the policy; then everything is proved again, with the
    solver that is installed here. Any JSON value gives an answer.
    """
    faults = [*shape_faults(found)]
    if faults:
        return faults
    assert isinstance(found, dict)
    other = [*_other(_head(policy), found)]
    if other:
        return other
    known = _entries(policy)
    changed = [*_unsealed(found), *_names(found["promises"], known), *_differences(found["promises"], known)]
    return changed or [*_overstated(found["promises"], prove(policy, seconds=seconds))]


def _unsealed(found: Mapping[str, Any]) -> Iterator[str]:
    if _seal(found) != found["seal"]:
        yield "the seal does not match: something was changed after the certificate was made"


def _other(expected: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """Yield what tells that a certificate is of another policy, or of another version of this package."""
    for name in ("format", "package", "policy", "digest", "params", "limits"):
        if found[name] != expected[name]:
            yield f"`{name}` differs: the certificate has {_short(found[name])}, expected {_short(expected[name])}"


def _short(value: object) -> str:
    return reprlib.repr(value)


def _names(found: list[dict[str, Any]], expected: Mapping[tuple[str, str], object]) -> Iterator[str]:
    keys = Counter((one["promise"], one["about"]) for one in found)
    yield from (f"the promise {_named(key)} is missing" for key in expected if key not in keys)
    yield from (f"the promise {_named(key)} is not one of this policy" for key in keys if key not in expected)
    yield from (f"the promise {_named(key)} is given twice" for key, count in keys.items() if count > 1)


def _named(key: tuple[str, str]) -> str:
    return f"`{key[0]}` of `{key[1]}`" if key[1] else f"`{key[0]}`"


def _differences(found: list[dict[str, Any]], expected: Mapping[tuple[str, str], dict[str, Any]]) -> Iterator[str]:
    for one in found:
        key = (one["promise"], one["about"])
        for name, value in expected.get(key, {}).items():
            if one[name] != value:
                yield f"`{name}` of {_named(key)} is not what follows from the policy"


def _overstated(found: list[dict[str, Any]], results: Sequence[Result]) -> Iterator[str]:
    """Yield each promise that is said to be better known than it is found to be here."""
    known = {_key(one.claim): one for one in results}
    for one in found:
        key = (one["promise"], one["about"])
        result = known[key]
        if STATUSES.index(one["status"]) > STATUSES.index(result.status.value):
            yield f"{_named(key)} is said to be {one['status']}, found {result.status.value}: {result.how}"
