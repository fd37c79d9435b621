"""A certificate holds of its own policy and of nothing else, and nothing in it can be changed unnoticed."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

import lbw_policy
from lbw_policy.claims import Status
from lbw_policy.semantics.policy import Policy
from lbw_policy.verify import certificate as certificates
from lbw_policy.verify import proving
from lbw_policy.verify.certificate import certificate, verify
from lbw_policy.verify.proving import prove

Path = tuple[str | int, ...]
TEXT = """
lbw 1
policy child { doc "a tighter one" extends conservative }
limits { skip at most 3 in a row, at most 9 per 1_000 steps }
"""


@cache
def policy() -> Policy:
    return lbw_policy.load("monitor")


@cache
def _made() -> str:
    return json.dumps(certificate(policy(), prove(policy())))


def made() -> dict[str, Any]:
    """A certificate as it comes back from a file."""
    found: dict[str, Any] = json.loads(_made())
    return found


def sealed(found: dict[str, Any]) -> dict[str, Any]:
    """The certificate with a seal that fits, as a careful forger would make it."""
    return {**found, "seal": certificates._seal(found)}


def paths(value: object, at: Path = ()) -> Iterator[Path]:
    """Every place in a JSON value."""
    if at:
        yield at
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield from paths(part, (*at, name))


def put(found: dict[str, Any], at: Path, value: object) -> dict[str, Any]:
    """A copy with one place changed."""
    changed = copy.deepcopy(found)
    inner: Any = changed
    for name in at[:-1]:
        inner = inner[name]
    inner[at[-1]] = value
    return changed


def taken(found: dict[str, Any], at: Path) -> object:
    inner: Any = found
    for name in at:
        inner = inner[name]
    return inner


def test_a_certificate_comes_back_from_a_file_and_holds() -> None:
    assert verify(policy(), made()) == []


def test_it_says_what_was_proved_of_which_policy_and_by_what() -> None:
    found = made()

    assert (found["policy"], found["digest"]) == ("monitor", policy().digest)
    assert found["solver"].startswith("z3 ")
    assert all(len(digest) == 64 for one in found["promises"] for _, digest in one["obligations"])
    proofs = {one["promise"]: one for one in found["promises"]}
    assert proofs["skip_cannot_livelock"]["status"] == "proved"
    assert proofs["skip_cannot_livelock"]["invariants"]


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(at=st.sampled_from(sorted(paths(made()), key=repr)), value=ANY_JSON)
def test_any_change_in_any_place_is_refused_with_a_reason(at: Path, value: object) -> None:
    found = made()
    if json.dumps(taken(found, at)) == json.dumps(value):
        return
    reasons = verify(policy(), put(found, at, value))

    assert reasons
    assert all(isinstance(reason, str) and reason for reason in reasons)


@settings(max_examples=150, deadline=None)
@given(at=st.sampled_from(sorted(paths(made()), key=repr)))
def test_anything_left_out_is_refused(at: Path) -> None:
    changed = made()
    inner: Any = taken(changed, at[:-1])
    del inner[at[-1]]

    assert verify(policy(), changed)


FORGERIES: dict[str, tuple[Path, object]] = {
    "another package": (("package",), "9.9.9"),
    "another format": (("format",), 2),
    "another name": (("policy",), "tame"),
    "another digest": (("digest",), "0" * 64),
    "other params": (("params",), {"jump": 1.0}),
    "other limits": (("limits", "skip"), {"in_a_row": 1, "budget": {"count": 1, "window": 1}}),
    "another bound": (("promises", 1, "bound"), 2_000.0),
    "another sentence": (("promises", 1, "sentence"), "it never fails"),
    "another promise": (("promises", 0, "promise"), "never_fails"),
    "another invariant": (("promises", 1, "invariants"), ["true"]),
    "no obligations": (("promises", 1, "obligations"), []),
    "another obligation": (("promises", 1, "obligations", 0, 1), "0" * 64),
    "a promise twice": (("promises", 0), made()["promises"][1]),
    "fewer promises": (("promises",), made()["promises"][:-1]),
    "what was tested is proved": (("promises", 0, "status"), "proved"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forgery_with_a_seal_that_fits_is_refused(forgery: str) -> None:
    at, value = FORGERIES[forgery]

    assert verify(policy(), sealed(put(made(), at, value)))


def test_what_is_only_tested_here_cannot_be_verified_as_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving, "available", lambda: False)

    assert any("is said to be proved, found tested" in reason for reason in verify(policy(), made()))


def test_it_is_made_the_same_every_time_and_holds_if_it_claims_less(monkeypatch: pytest.MonkeyPatch) -> None:
    results = prove(policy())
    less = [evolve(one, status=Status.TESTED) for one in results]

    assert json.dumps(certificate(policy(), results)) == _made()
    assert verify(policy(), json.loads(json.dumps(certificate(policy(), less)))) == []


def test_a_certificate_of_another_policy_or_of_other_params_is_refused() -> None:
    loose, tight = (lbw_policy.load("conservative", params={"spike_ratio": ratio}) for ratio in (10, 20))

    assert any("`policy` differs" in reason for reason in verify(loose, made()))
    assert certificates._head(loose)["limits"] == certificates._head(tight)["limits"]
    assert {"`digest` differs", "`params` differs"} <= {
        reason.split(":")[0] for reason in certificates._other(certificates._head(loose), certificates._head(tight))
    }


def test_a_policy_with_every_kind_of_limit_has_a_certificate() -> None:
    child = lbw_policy.load(TEXT)
    found = json.loads(json.dumps(certificate(child, prove(child))))

    assert verify(child, found) == []
    assert "refines_parent" in {one["promise"] for one in found["promises"]}


def deep(levels: int) -> object:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [None, True, 3, float("nan"), "x", [], {}, [[]], deep(900), {"format": float("inf")}, {1: 2}, {"seal": deep(900)}],
    ids=repr,
)
def test_what_is_no_certificate_is_refused_with_a_reason(value: object) -> None:
    assert verify(policy(), value)


@pytest.mark.parametrize("name", list(made()))
def test_values_of_no_sense_are_refused_in_every_part(name: str) -> None:
    for value in (
        None,
        True,
        -1,
        10**5000,
        float("nan"),
        float("inf"),
        "x" * 200_000,
        deep(900),
        {"a": deep(900)},
        [deep(900)],
    ):
        assert verify(policy(), {**made(), name: value})
        broken = made()
        broken["promises"][0] = {**broken["promises"][0], "bound": value, "about": value}
        assert verify(policy(), broken)
