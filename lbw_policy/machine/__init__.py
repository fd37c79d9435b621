"""Policy -> state machine: telemetry in, requests out. Asks for actions and never takes one."""

from lbw_policy.machine.decision import Decision, Message
from lbw_policy.machine.expressions import Evaluator
from lbw_policy.machine.machine import RiskValues, StateMachine
from lbw_policy.machine.session import Session, Turn, Upkeep, by_signal

__all__ = ["Decision", "Evaluator", "Message", "RiskValues", "Session", "StateMachine", "Turn", "Upkeep", "by_signal"]
