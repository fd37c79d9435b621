"""Policy -> state machine: telemetry in, requests out. Asks for actions and never takes one."""

from lbw_policy.machine.decision import Decision, Message
from lbw_policy.machine.expressions import Evaluator
from lbw_policy.machine.machine import RiskValues, StateMachine

__all__ = ["Decision", "Evaluator", "Message", "RiskValues", "StateMachine"]
