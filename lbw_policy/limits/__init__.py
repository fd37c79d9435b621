"""The only way from a decision to an action: every request is granted, reduced or refused here."""

from lbw_policy.limits.allowance import Allowance
from lbw_policy.limits.limiter import Limiter
from lbw_policy.limits.requests import Grant, Outcome, Request, Situation

__all__ = ["Allowance", "Grant", "Limiter", "Outcome", "Request", "Situation"]
