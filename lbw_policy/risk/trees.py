"""Boosted trees from a prior, their sum refined online: what sees combinations that no weighted sum can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from lbw_policy.errors import StateError
from lbw_policy.risk import plain
from lbw_policy.risk.logistic import Logistic
from lbw_policy.risk.running import bounded

SUM = "standard.trees"
"""The feature that the trees' sum of log-odds is to the regression behind them."""
_MOST_NODES = 20_000


@frozen
class Tree:
    """One tree as parallel lists, a node each; the first is the root.

    `feature` is -1 in a leaf, else the place of the feature that is compared: at most `bound` goes to `left`, more
    to `right`. `value` is what the trees after it would add on average, in a leaf exactly: so the steps of `value`
    along a path say which feature moved the answer (Saabas 2014).
    """

    feature: tuple[int, ...]
    bound: tuple[float, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    value: tuple[float, ...]

    def leaf(self, point: Sequence[float]) -> float:
        """Return the value of the leaf that a point falls into."""
        node, feature = 0, self.feature
        while feature[node] >= 0:
            node = self.left[node] if point[feature[node]] <= self.bound[node] else self.right[node]
        return self.value[node]

    def explain(self, point: Sequence[float], shares: list[float]) -> None:
        """Add to each feature's share what its comparisons on a point's path changed."""
        node, feature, value = 0, self.feature, self.value
        while feature[node] >= 0:
            after = self.left[node] if point[feature[node]] <= self.bound[node] else self.right[node]
            shares[feature[node]] += value[after] - value[node]
            node = after

    def plain(self) -> dict[str, list[Any]]:
        """Return the lists."""
        return {name: list(getattr(self, name)) for name in ("feature", "bound", "left", "right", "value")}

    @classmethod
    def of(cls, state: object, features: int) -> Tree:
        """Return the tree saved as plain data; raise `StateError` unless every path ends."""
        feature, left, right = (_places(state, name) for name in ("feature", "left", "right"))
        bound, value = plain.numbers(state, "bound"), plain.numbers(state, "value")
        count = len(feature)
        alike = count == len(left) == len(right) == len(bound) == len(value) and count > 0
        # INVARIANT: a child comes after its parent, so every path ends.
        forward = alike and all(
            feature[node] < features
            and (feature[node] < 0 or node < min(left[node], right[node]) <= max(left[node], right[node]) < count)
            for node in range(count)
        )
        if not forward:
            message = "risk state: expected trees whose children come after their parents, found others"
            raise StateError(message)
        return cls(tuple(feature), tuple(bound), tuple(left), tuple(right), tuple(value))


def _places(state: object, key: str) -> list[int]:
    found = plain.items(state, key)
    if not all(isinstance(each, int) and not isinstance(each, bool) for each in found):
        message = f"risk state: expected whole numbers in `{key}`, found others"
        raise StateError(message)
    return found


class Trees:
    """A fixed sum of trees, and River's logistic regression over that sum and a policy's own features.

    The trees come from a prior and never change; the regression starts as the sum itself and is bounded around it
    like `Logistic`. Without a prior there are no trees, and it is `Logistic` on the policy's own features.
    Not River's forests: they take over 1 ms a step and 1.6 MB, and their state is Python objects, not plain data.
    """

    def __init__(self, seed: int = 0) -> None:
        self._head = Logistic(seed)
        self._names: tuple[str, ...] = ()
        self._typical: tuple[float, ...] = ()
        self._trees: tuple[Tree, ...] = ()

    @property
    def informed(self) -> bool:
        """True if it started from a prior."""
        return self._head.informed

    def predict(self, features: Mapping[str, float]) -> float:
        """Return the probability of divergence."""
        return self._head.predict(self._headed(features))

    def learn(self, features: Mapping[str, float], diverged: bool) -> None:
        """Let the regression behind the trees learn."""
        self._head.learn(self._headed(features), diverged)

    def drivers(self, features: Mapping[str, float]) -> list[tuple[str, float]]:
        """Return what each feature moved along its paths, and what the own features add, in log-odds."""
        point, shares = self._point(features), [0.0] * len(self._names)
        for tree in self._trees:
            tree.explain(point, shares)
        own = [(name, share) for name, share in self._head.drivers(self._headed(features)) if name != SUM]
        return [*zip(self._names, shares, strict=True), *own]

    def _point(self, features: Mapping[str, float]) -> list[float]:
        # What is absent is taken as typical.
        get = features.get
        return [get(name, usual) for name, usual in zip(self._names, self._typical, strict=True)]

    def _headed(self, features: Mapping[str, float]) -> dict[str, float]:
        known = set(self._names)
        own = {name: value for name, value in features.items() if name not in known}
        if self._trees:
            point = self._point(features)
            own[SUM] = bounded(sum(tree.leaf(point) for tree in self._trees))
        return own

    def load_prior(self, prior: Mapping[str, Any]) -> None:
        """Take over a prior's trees; raise `StateError` where they are damaged."""
        self._take_trees(prior)
        self._head.load_prior(plain.mapping(prior, "head"))

    def state_dict(self) -> dict[str, Any]:
        """Return trees and regression as plain data."""
        return {
            "names": list(self._names),
            "typical": list(self._typical),
            "trees": [tree.plain() for tree in self._trees],
            "head": self._head.state_dict(),
        }

    def load_state_dict(self, state: object) -> None:
        """Rebuild the model from plain data; raise `StateError` where it is damaged."""
        self._take_trees(state)
        self._head.load_state_dict(plain.entry(state, "head"))

    def _take_trees(self, state: object) -> None:
        names, typical = plain.items(state, "names"), plain.numbers(state, "typical")
        trees = [Tree.of(each, len(names)) for each in plain.items(state, "trees")]
        sane = len(names) == len(typical) and all(isinstance(name, str) for name in names)
        if not sane or sum(len(tree.feature) for tree in trees) > _MOST_NODES:
            message = f"risk state: expected a typical value a feature, and at most {_MOST_NODES} nodes, found others"
            raise StateError(message)
        self._names, self._typical, self._trees = tuple(names), tuple(typical), tuple(trees)
