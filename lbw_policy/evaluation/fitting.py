"""Fits the parameters of a model to labelled steps of many runs at once; what comes out is the model's plain state."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from attrs import frozen

from lbw_policy.evaluation.counting import ALWAYS, NEVER, Scored
from lbw_policy.evaluation.examples import PLACES, Example, Floats
from lbw_policy.risk.features import STANDARD_FEATURES
from lbw_policy.risk.logistic import START
from lbw_policy.risk.pieces import names_of
from lbw_policy.risk.running import BOUND
from lbw_policy.risk.trees import SUM, Tree

KEPT = 0.25
"""Share of quiet steps that are learned, each weighted 1 / KEPT."""
HEALING = 0.1
"""Weight of a step after a fault that healed: it was no divergence, but trouble it was."""
PENALTY = 10.0
"""Of the squared weights, against weighted rows."""
FALLING = ("standard.grad_agreement", "standard.grad_agreement_mean")
"""Features that lower the risk as they rise; all others raise it."""
DIGITS = 9
"""Decimals that are kept, so that the last bits of a machine's arithmetic are not in the file."""
KNOTS: dict[str, tuple[float, ...]] = {
    "standard.update_level": (3.0, 4.0),
    "standard.update_excess": (1.0, 2.0),
    "standard.weight_growth": (1.5,),
    "standard.loss_height_mean": (0.3, 0.6),
    "standard.loss_height_low": (0.5,),
    "standard.loss_climb": (0.2,),
    "standard.loss_climb_long": (0.3,),
    "standard.overshoot_mean": (1.5,),
    "standard.lr_jump": (0.7,),
}
"""Where features are cut into pieces with weights of their own: what is usual tells little, what is not, much."""
FALLING = ("standard.grad_agreement", "standard.grad_agreement_mean")
"""Features that lower the risk as they rise; all others raise it."""
DIGITS = 9
"""Decimals that are kept, so that the last bits of a machine's arithmetic are not in the file."""
BENDS: tuple[tuple[str, float], ...] = (
    ("standard.update_level", 3.0),
    ("standard.update_level", 4.0),
    ("standard.update_excess", 1.0),
    ("standard.update_excess", 2.0),
    ("standard.weight_growth", 1.5),
    ("standard.loss_height_mean", 0.3),
    ("standard.loss_height_mean", 0.6),
    ("standard.loss_height_low", 0.5),
    ("standard.loss_climb", 0.2),
    ("standard.loss_climb_long", 0.3),
    ("standard.overshoot_mean", 1.5),
    ("standard.lr_jump", 0.7),
)
"""Features and knots beyond which they have a weight of their own: what is usual tells little, what is not, much."""


@frozen(eq=False)
class Rows:
    """Labelled steps: a row of features each (NaN where absent), a label, a weight."""

    points: Floats
    labels: Floats
    weights: Floats

    @classmethod
    def of(cls, runs: Sequence[Example], horizon: int, seed: int) -> Rows:
        """Return the rows of some runs: all positives, a share of the negatives, weighted back.

        Steps after the fault of a run that diverges later than the horizon are left out: trouble has begun.
        """
        dice = np.random.default_rng(seed)
        parts = [_rows(each, horizon, dice) for each in runs]
        points, labels, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
        return cls(points, labels, weights)


def _rows(one: Example, horizon: int, dice: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    labels = one.labels(horizon)
    negative = (labels == 0) & (one.calm | one.healing) & (dice.random(one.steps) < KEPT)
    chosen = one.asked & (negative | (labels == 1))
    weights = np.where(labels == 1, 1.0, np.where(one.calm, 1.0, HEALING) / KEPT)
    return one.points[chosen], labels[chosen].astype(float), weights[chosen]


Score = Callable[[Floats], Floats]
"""Log-odds of rows of features."""


@frozen(eq=False)
class Fitted:
    """A fitted model: the plain state that `load_prior` takes, and the same model as a function of many rows."""

    state: Mapping[str, Any]
    score: Score

    def scored(self, one: Example) -> Scored:
        """Return a run with its scores."""
        scores = np.full(one.steps, NEVER)
        if one.asked.any():
            scores[one.asked] = self.score(one.points[one.asked])
        scores[one.certain] = ALWAYS
        return Scored(one, scores)


@frozen(eq=False)
class Scaling:
    """Each feature's mean and standard deviation over weighted rows; what is absent is taken as the mean."""

    means: Floats
    spreads: Floats

    @classmethod
    def of(cls, rows: Rows) -> Scaling:
        """Measure the rows; a feature that no row has gets 0 and 1."""
        known = np.isfinite(rows.points)
        weights = known * rows.weights[:, None]
        total = np.maximum(weights.sum(0), 1e-9)
        filled = np.where(known, rows.points, 0.0)
        means = (weights * filled).sum(0) / total
        spreads = np.sqrt((weights * (filled - means) ** 2).sum(0) / total)
        return cls(means, np.where(spreads > 1e-6, spreads, 1.0))

    def scaled(self, points: Floats) -> Floats:
        """Return rows as `risk.scaling.Scaler` scales them."""
        scaled = (points - self.means) / self.spreads
        return np.clip(np.where(np.isfinite(scaled), scaled, 0.0), -BOUND, BOUND)


def fit_logistic(rows: Rows) -> Fitted:
    """Fit the weights of `risk.logistic.Logistic`: L2-penalised logistic regression, monotone in every feature.

    Features are cut at their knots, pieces standardised, and the weights of a feature's pieces have its sign. So the
    answer never falls as trouble grows beyond what training runs had, and what one fault taught serves another.
    """
    pieces = _pieces(rows.points)
    scaling = Scaling.of(Rows(pieces, rows.labels, rows.weights))
    weights, intercept = _minimise(scaling.scaled(pieces), rows)
    names = [name for feature in PLACES for name in names_of(feature, KNOTS.get(feature, ()))]
    state = {
        "counts": dict.fromkeys(names, float(len(rows.labels))),
        "means": _rounded(names, scaling.means),
        "variances": _rounded(names, scaling.spreads**2),
        "weights": _rounded(names, weights),
        "intercept": round(intercept, DIGITS),
        "pieces": {feature: list(knots) for feature, knots in KNOTS.items()},
    }
    return Fitted(state, lambda points: scaling.scaled(_pieces(points)) @ weights + intercept)


def _pieces(points: Floats) -> Floats:
    """Return the rows with each feature cut at its knots, as `risk.pieces` does."""
    columns = []
    for feature, place in PLACES.items():
        column, edges = points[:, place], [*KNOTS.get(feature, ()), np.inf]
        columns.append(np.minimum(column, edges[0]))
        columns += [np.clip(column, low, high) - low for low, high in itertools.pairwise(edges)]
    return np.column_stack(columns)


def _signs() -> list[int]:
    pieces = {feature: 1 + len(KNOTS.get(feature, ())) for feature in PLACES}
    return [-1 if feature in FALLING else 1 for feature, count in pieces.items() for _ in range(count)]


def _minimise(scaled: Floats, rows: Rows) -> tuple[Floats, float]:
    """Return the weights, of the right signs, and the intercept of the least penalised log-loss."""
    from scipy.optimize import minimize

    labels, weights = rows.labels, rows.weights

    def loss(values: Floats) -> tuple[float, Floats]:
        inner = values[:-1]
        odds = scaled @ inner + values[-1]
        lost = float((weights * (np.logaddexp(0.0, odds) - labels * odds)).sum() + 0.5 * PENALTY * inner @ inner)
        gaps = weights * (1.0 / (1.0 + np.exp(-odds)) - labels)
        return lost, np.append(scaled.T @ gaps + PENALTY * inner, gaps.sum())

    bounds = [(0.0, None) if sign > 0 else (None, 0.0) for sign in _signs()]
    start = np.append(np.zeros(scaled.shape[1]), START)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[*bounds, (None, None)], options={"maxiter": 500})
    return found.x[:-1], float(found.x[-1])


def _rounded(names: Sequence[str], values: Floats) -> dict[str, float]:
    return {name: round(float(value), DIGITS) for name, value in zip(names, values, strict=True)}


def fit_trees(rows: Rows, *, trees: int = 40, leaves: int = 6, seed: int = 0) -> Fitted:
    """Fit the trees of `risk.trees.Trees`: gradient boosting on histograms, as scikit-learn does it.

    Raises AssertionError where the plain trees do not answer as scikit-learn's own do.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    typical = Scaling.of(rows).means
    found = HistGradientBoostingClassifier(
        max_iter=trees,
        max_leaf_nodes=leaves,
        learning_rate=0.1,
        l2_regularization=20.0,
        min_samples_leaf=30,
        early_stopping=False,
        random_state=seed,
    )
    filled = np.where(np.isfinite(rows.points), rows.points, typical)
    found.fit(filled, rows.labels, sample_weight=rows.weights)
    plain = [_plain_tree(step[0].nodes) for step in found._predictors]
    base = float(np.ravel(found._baseline_prediction)[0])
    _check_trees(plain, base, filled[:200], found.decision_function(filled[:200]))
    state = {
        "names": list(STANDARD_FEATURES),
        "typical": [float(value) for value in typical],
        "trees": [tree.plain() for tree in plain],
        "head": {
            "counts": {SUM: 1.0},
            "means": {SUM: 0.0},
            "variances": {SUM: 1.0},
            "weights": {SUM: 1.0},
            "intercept": base,
            "pieces": {},
        },
    }
    return Fitted(state, lambda points: found.decision_function(np.where(np.isfinite(points), points, typical)))


def _plain_tree(nodes: Any) -> Tree:  # noqa: ANN401 - a structured array
    """Return one of scikit-learn's trees as plain lists; a parent's value is the mean of its children's, by count."""
    values = [float(node["value"]) for node in nodes]
    for place in reversed(range(len(nodes))):
        node = nodes[place]
        if not node["is_leaf"]:
            left, right = int(node["left"]), int(node["right"])
            counts = int(nodes[left]["count"]), int(nodes[right]["count"])
            values[place] = (values[left] * counts[0] + values[right] * counts[1]) / max(sum(counts), 1)
    return Tree(
        feature=tuple(-1 if node["is_leaf"] else int(node["feature_idx"]) for node in nodes),
        bound=tuple(0.0 if node["is_leaf"] else float(node["num_threshold"]) for node in nodes),
        left=tuple(int(node["left"]) for node in nodes),
        right=tuple(int(node["right"]) for node in nodes),
        value=tuple(values),
    )


def _check_trees(trees: Sequence[Tree], base: float, points: Floats, expected: Floats) -> None:
    found = [base + sum(tree.leaf(point) for tree in trees) for point in points.tolist()]
    if not np.allclose(found, expected):
        raise AssertionError("the plain trees do not answer as scikit-learn's do")


FITS: dict[str, Callable[[Rows], Fitted]] = {"logistic": fit_logistic, "trees": fit_trees}
"""How the models that start from a prior are fitted, by name."""
