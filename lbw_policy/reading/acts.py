"""Actions in the language's own words, and in English."""

from __future__ import annotations

from lbw_policy.machine.ladder import lasts
from lbw_policy.reading.phrases import number
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.spelling import Vocabulary, share, spell, steps
from lbw_policy.semantics.walk import chain


def written(action: p.Action, words: Vocabulary) -> str:
    """Return an action and its fallbacks as a policy writes them, without `do`."""
    return " else ".join(_written(one, words) for one in chain(action))


def _written(action: p.Action, words: Vocabulary) -> str:
    match action:
        case p.Clip(to, layers):
            return f"clip {'layers ' if layers else ''}to {spell(to, words)}"
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
        case p.Clip(to, layers):
            what = "the gradients of each layer" if layers else "the gradients"
            return f"scales {what} down to a norm of at most {number(to, words)}{_lasting(held)}"
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


def instead(action: p.Action, words: Vocabulary, *, held: bool) -> str:
    """Return what is done where an action is refused in sentences, with a space before each; empty for nothing."""
    found, refused = "", action
    # In place of what is held, something is done in each update in which that is refused, and for that update.
    held = held and not lasts(action)
    for fallback in chain(action):
        if fallback is not action:
            too = " too" if refused is not action else ""
            found += f" Where `{p.name_of(refused)}` is refused{too}, it {told(fallback, words, held=held)}."
            held = held and not lasts(fallback)
        refused = fallback
    return found


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
