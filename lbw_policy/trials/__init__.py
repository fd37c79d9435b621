"""A policy's own tests: runs over given telemetry, what they must do, and what they never exercised. Pure."""

from lbw_policy.trials.coverage import Coverage, covered
from lbw_policy.trials.judging import Verdict, judge
from lbw_policy.trials.running import Outcome, run_trial, trace_of
from lbw_policy.trials.trace import Moment, Trace

__all__ = ["Coverage", "Moment", "Outcome", "Trace", "Verdict", "covered", "judge", "run_trial", "trace_of"]
