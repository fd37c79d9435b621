"""Actions in the language's own words, and in English."""

from __future__ import annotations

from lbw_policy.reading.phrases import number
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.spelling import Vocabulary, share, spell, steps


def written(action: p.Action, words: Vocabulary) -> str:
    """Return an action as a policy writes it, without `do`."""
    match action:
        case p.Clip(to):
            return f"clip to {spell(to, words)}"
        case p.ScaleLr(by, restore):
            return f"scale_lr by {spell(by, words)}" + (f" restore over {steps(restore)}" if restore > 1 else "")
        case p.Rollback(at_most):
            return f"rollback at most {steps(at_most)}"
        case p.Freeze():
            return f"freeze top {share(action.share)} of {action.group or 'layers'} by {action.by}"
        case p.Custom(name, given):
            return name if given is None else f"{name} with {spell(given, words)}"
        case _:
            return p.name_of(action)


def told(action: p.Action, words: Vocabulary, *, held: bool) -> str:
    """Return an action as what the guard does; `held` where it lasts as long as its level."""
    match action:
        case p.Skip():
            return "leaves this update out"
        case p.Clip(to):
            return f"scales the gradients down to a norm of at most {number(to, words)}{_lasting(held)}"
        case p.ScaleLr(by, restore):
            back = f"; afterwards the rate comes back over {steps(restore)}" if held and restore > 1 else ""
            return f"multiplies the learning rate by {number(by, words)}{_lasting(held)}{back}"
        case p.Rollback(at_most):
            return f"takes the run back to the newest healthy snapshot, {steps(at_most)} at most"
        case p.Freeze():
            chosen = f"{share(action.share)} of the layers"
            group = f", all in the group `{action.group}`" if action.group else ""
            return f"holds still {chosen}, those with the highest `{action.by}`{group}{_lasting(held)}"
        case p.ResetMoments():
            return "sets the optimizer's running moments to zero"
        case p.Checkpoint():
            return "calls the run's checkpoint function"
        case p.Halt():
            return "stops the run"
        case p.Custom(name, given):
            return f"does `{name}`" + ("" if given is None else f" with {number(given, words)}")


def _lasting(held: bool) -> str:
    return ", as long as the level lasts" if held else ", for this update only"


def asked(action: p.Action) -> float | None:
    """Return the most an action asks for where that is one number: steps, a share, an lr factor."""
    match action:
        case p.Rollback(at_most):
            return float(at_most)
        case p.Freeze():
            return action.share
        case p.ScaleLr(by):
            return getattr(by, "value", None)
        case _:
            return None


def sentence(parts: list[str]) -> str:
    """Return `a, b and c`."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
