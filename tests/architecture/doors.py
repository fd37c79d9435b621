"""Finds, in source text, everything that could change a run without a grant of the limiter."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache

from attrs import field, frozen

TOUCHED = {"grad", "data", "requires_grad", "param_groups"}
"""Attributes that belong to the run."""
OPTIONS = {"lr", "weight_decay", "momentum", "betas", "eps", "params"}
"""Entries of a parameter group."""
STEPPING = {"zero_grad", "backward", "add_param_group", "register_step_pre_hook", "register_step_post_hook"}
CLEARING = {"clear", "pop", "popitem", "update", "setdefault"}
HANDS = {"Gradients", "UpdateScale", "reset_moments"}
"""What of `lbw_policy.actions` changes a run."""
GRANTED = {"turn.granted", "self._turn.granted"}
"""What may be handed to the guard's hands."""
BY_GRANT = {"apply", "choose", "checkpoint", "act"}
AHEAD = {"act_ahead": {"self._ruling"}}
"""What acts before the limiter is asked, on what it has said it will grant."""
GIVING_BACK = {"release", "hold", "impossible", "go_on_freezing", "can_act_ahead"}

IN_PLACE = "changes a tensor"


@frozen
class Finding:
    """One line that changes a run, in which function, and how."""

    where: str
    line: int = field(eq=False)
    what: str


@cache
def findings(source: str) -> frozenset[Finding]:
    """Return all that changes a run."""
    found = _placed(ast.parse(source), "")
    return frozenset(Finding(where, node.lineno, what) for where, node in found for what in _changes(node))


def _placed(node: ast.AST, where: str) -> Iterator[tuple[str, ast.stmt | ast.expr]]:
    """Yield every statement and expression with the dotted name of what it stands in."""
    for child in ast.iter_child_nodes(node):
        inside = f"{where}.{child.name}".strip(".") if isinstance(child, ast.FunctionDef | ast.ClassDef) else where
        if isinstance(child, ast.stmt | ast.expr):
            yield where, child
        yield from _placed(child, inside)


def _changes(node: ast.stmt | ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del) and node.attr in TOUCHED:
        yield f"sets `.{node.attr}`"
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        yield from _entry(node)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        yield from _called(node, node.func.id)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        yield from _method(node, node.func)
    if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lbw_policy.actions"):
        yield from (f"imports `{alias.name}`" for alias in node.names if alias.name in HANDS | {"*"})


def _entry(node: ast.Subscript) -> Iterator[str]:
    base = ast.unparse(node.value)
    if isinstance(node.slice, ast.Constant) and node.slice.value in OPTIONS:
        yield f"sets an optimizer's `{node.slice.value}`"
    elif "param_groups" in base or base.endswith("optimizer.state"):
        yield "sets an optimizer's state"


def _called(node: ast.Call, name: str) -> Iterator[str]:
    if name == "setattr" and len(node.args) > 1 and ast.unparse(node.args[1]).strip("'\"") in TOUCHED | OPTIONS:
        yield "sets an attribute of the run by name"
    if name in ("setattr", "delattr") and len(node.args) > 1 and not isinstance(node.args[1], ast.Constant):
        yield "sets an attribute by a computed name"
    if name in ("Grant", "Ruling"):
        yield f"makes a {name.lower()}"


def _method(node: ast.Call, method: ast.Attribute) -> Iterator[str]:
    name, owner = method.attr, ast.unparse(method.value)
    if name.endswith("_") and not name.startswith("__"):
        yield f"{IN_PLACE} by `{name}`"
    if name in STEPPING or (name == "step" and "optimizer" in owner):
        yield f"calls `{name}`"
    if name in CLEARING and owner.endswith("optimizer.state"):
        yield "sets an optimizer's state"
    if name == "load_state_dict" and owner.rpartition(".")[2].strip("_") in ("optimizer", "scheduler", "scaler"):
        yield "loads the run's state"
    if name == "restore" and "snapshots" in owner:
        yield "restores a snapshot"
    if name == "Grant" or (name == "evolve" and node.args and "grant" in ast.unparse(node.args[0])):
        yield "makes a grant"
    if owner.rpartition(".")[2].strip("_") in ("effects", "plugged"):
        yield from _handed(node, name)


def _handed(node: ast.Call, name: str) -> Iterator[str]:
    """Yield what is wrong with a call of the guard's hands."""
    if name in BY_GRANT and not (node.args and ast.unparse(node.args[0]) in GRANTED):
        yield f"calls `{name}` of the guard's hands without grants"
    elif name in AHEAD and not (node.args and ast.unparse(node.args[0]) in AHEAD[name]):
        yield f"calls `{name}` of the guard's hands without a ruling"
    elif name not in BY_GRANT | GIVING_BACK | set(AHEAD):
        yield f"calls the unknown `{name}` of the guard's hands"
