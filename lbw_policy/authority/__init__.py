"""The most a policy can ever do to a run, in closed form. Needs the policy only, so it costs `lbw-check` little."""

from lbw_policy.authority.card import Card, Line, card

__all__ = ["Card", "Line", "card"]
