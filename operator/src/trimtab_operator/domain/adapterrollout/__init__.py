"""AdapterRollouts: from a passed gate to the serving pods, and back."""

from .decide import plan, retire
from .observed import AgentTruth, Observed, ServingPod

__all__ = ["AgentTruth", "Observed", "ServingPod", "plan", "retire"]
