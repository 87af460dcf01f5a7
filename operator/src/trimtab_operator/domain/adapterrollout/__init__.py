"""AdapterRollouts: from a passed gate to the serving pods, and back. Nothing calls this yet but its tests."""

from .documents import Document, retired
from .observed import AgentTruth, Observed, ServingPod
from .plan import RolloutPlan, plan

__all__ = ["AgentTruth", "Document", "Observed", "RolloutPlan", "ServingPod", "plan", "retired"]
