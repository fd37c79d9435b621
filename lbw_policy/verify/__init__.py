"""Promises about a policy, held against runs: in-file tests, their traces and their coverage. Pure."""

from lbw_policy.verify.coverage import Coverage, covered
from lbw_policy.verify.judging import Verdict, judge
from lbw_policy.verify.trace import Moment, Trace
from lbw_policy.verify.trials import Outcome, run_trial, trace_of

__all__ = ["Coverage", "Moment", "Outcome", "Trace", "Verdict", "covered", "judge", "run_trial", "trace_of"]
