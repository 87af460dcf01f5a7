"""Where a pod may run: core/v1 Affinity, tolerations and topology spread, with bounds.

The field names, nesting and meaning are those of core/v1, so that what a user knows from any pod template works here;
`to_json()` of each model is the corresponding piece of a pod spec.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from trimtab_trainer.contract import Model

LABEL_KEY = Annotated[
    str,
    Field(
        min_length=1,
        max_length=317,
        pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
    ),
]
LABEL_VALUE = Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")]
NAMESPACE = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]

ATOMIC: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}


def keyed_by(*keys: str) -> dict[str, Any]:
    """Return the schema extension of a list whose items are told apart by these fields."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


class LabelSelectorRequirement(Model):
    """One requirement on the labels of pods or namespaces."""

    key: LABEL_KEY = Field(description="key of the label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="operator that relates the key to the values."
    )
    values: list[LABEL_VALUE] | None = Field(
        default=None,
        max_length=32,
        json_schema_extra=ATOMIC,
        description="values for In and NotIn; absent for Exists and DoesNotExist.",
    )


class LabelSelector(Model):
    """Which pods or namespaces, by their labels; all requirements must hold."""

    match_labels: dict[str, LABEL_VALUE] | None = Field(
        default=None, max_length=32, description="matchLabels that must be there with these values."
    )
    match_expressions: list[LabelSelectorRequirement] | None = Field(
        default=None,
        max_length=16,
        json_schema_extra=ATOMIC,
        description="matchExpressions that must hold.",
    )


class NodeSelectorRequirement(Model):
    """One requirement on a node."""

    key: LABEL_KEY = Field(description="key of the node's label or field.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(
        description="operator that relates the key to the values."
    )
    values: list[Annotated[str, Field(max_length=253)]] | None = Field(
        default=None,
        max_length=64,
        json_schema_extra=ATOMIC,
        description="values for In and NotIn, one integer for Gt and Lt; absent for Exists and DoesNotExist.",
    )


class NodeSelectorTerm(Model):
    """Requirements on a node that must all hold."""

    match_expressions: list[NodeSelectorRequirement] | None = Field(
        default=None, max_length=16, json_schema_extra=ATOMIC, description="matchExpressions on the node's labels."
    )
    match_fields: list[NodeSelectorRequirement] | None = Field(
        default=None, max_length=16, json_schema_extra=ATOMIC, description="matchFields on the node's fields."
    )


class NodeSelector(Model):
    """Terms of which one must hold."""

    node_selector_terms: list[NodeSelectorTerm] = Field(
        min_length=1, max_length=16, json_schema_extra=ATOMIC, description="nodeSelectorTerms of which one must hold."
    )


WEIGHT = Annotated[int, Field(ge=1, le=100)]


class PreferredSchedulingTerm(Model):
    """A wish about the node."""

    weight: WEIGHT = Field(description="weight of the wish, 1 to 100.")
    preference: NodeSelectorTerm = Field(description="preference for nodes that meet this term.")


class NodeAffinity(Model):
    """Which nodes the pod needs or prefers."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = Field(
        default=None,
        description="requiredDuringSchedulingIgnoredDuringExecution: the node must meet this when the pod is placed.",
    )
    preferred_during_scheduling_ignored_during_execution: list[PreferredSchedulingTerm] | None = Field(
        default=None,
        max_length=16,
        json_schema_extra=ATOMIC,
        description="preferredDuringSchedulingIgnoredDuringExecution: nodes with the largest sum of weights win.",
    )


class PodAffinityTerm(Model):
    """Pods to be near to, or away from."""

    topology_key: LABEL_KEY = Field(description="topologyKey: nodes with one value of this label are one place.")
    label_selector: LabelSelector | None = Field(default=None, description="labelSelector of the other pods.")
    namespaces: list[NAMESPACE] | None = Field(
        default=None,
        max_length=32,
        json_schema_extra=ATOMIC,
        description="namespaces of the other pods; absent: this one.",
    )
    namespace_selector: LabelSelector | None = Field(
        default=None, description="namespaceSelector of the other pods' namespaces, beside namespaces."
    )
    match_label_keys: list[LABEL_KEY] | None = Field(
        default=None,
        max_length=16,
        json_schema_extra=ATOMIC,
        description="matchLabelKeys of this pod whose values the other pods must share.",
    )
    mismatch_label_keys: list[LABEL_KEY] | None = Field(
        default=None,
        max_length=16,
        json_schema_extra=ATOMIC,
        description="mismatchLabelKeys of this pod whose values the other pods must not share.",
    )


class WeightedPodAffinityTerm(Model):
    """A wish about other pods."""

    weight: WEIGHT = Field(description="weight of the wish, 1 to 100.")
    pod_affinity_term: PodAffinityTerm = Field(description="podAffinityTerm that is wished for.")


class PodAffinity(Model):
    """Which pods to be near to; as anti-affinity: to be away from."""

    required_during_scheduling_ignored_during_execution: list[PodAffinityTerm] | None = Field(
        default=None,
        max_length=16,
        json_schema_extra=ATOMIC,
        description="requiredDuringSchedulingIgnoredDuringExecution: all terms must hold when the pod is placed.",
    )
    preferred_during_scheduling_ignored_during_execution: list[WeightedPodAffinityTerm] | None = Field(
        default=None,
        max_length=16,
        json_schema_extra=ATOMIC,
        description="preferredDuringSchedulingIgnoredDuringExecution: nodes with the largest sum of weights win.",
    )


class Affinity(Model):
    """Where the pod must or should run."""

    node_affinity: NodeAffinity | None = Field(default=None, description="nodeAffinity: by the labels of nodes.")
    pod_affinity: PodAffinity | None = Field(default=None, description="podAffinity: near other pods.")
    pod_anti_affinity: PodAffinity | None = Field(default=None, description="podAntiAffinity: away from other pods.")


class Toleration(Model):
    """A taint that the pod tolerates."""

    key: LABEL_KEY | None = Field(default=None, description="key of the taint; absent, with Exists: every taint.")
    operator: Literal["Exists", "Equal", "Lt", "Gt"] | None = Field(
        default=None, description="operator that relates the key to the value; absent: Equal."
    )
    value: LABEL_VALUE | None = Field(default=None, description="value of the taint.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="effect of the taint; absent: every effect."
    )
    toleration_seconds: int | None = Field(
        default=None,
        ge=0,
        le=31_536_000,
        description="tolerationSeconds a NoExecute taint is tolerated for; absent: for ever.",
    )


class TopologySpreadConstraint(Model):
    """How evenly pods are spread over places."""

    max_skew: int = Field(ge=1, le=10_000, description="maxSkew between the fullest place and the emptiest.")
    topology_key: LABEL_KEY = Field(description="topologyKey: nodes with one value of this label are one place.")
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = Field(
        description="whenUnsatisfiable: wait, or place the pod all the same."
    )
    label_selector: LabelSelector | None = Field(default=None, description="labelSelector of the pods that count.")
    min_domains: int | None = Field(default=None, ge=1, le=10_000, description="minDomains that must be there.")
    node_affinity_policy: Literal["Honor", "Ignore"] | None = Field(
        default=None, description="nodeAffinityPolicy: whether nodes that the pod's affinity excludes count."
    )
    node_taints_policy: Literal["Honor", "Ignore"] | None = Field(
        default=None, description="nodeTaintsPolicy: whether nodes with taints count."
    )
    match_label_keys: list[LABEL_KEY] | None = Field(
        default=None,
        max_length=16,
        json_schema_extra=ATOMIC,
        description="matchLabelKeys of this pod whose values the counted pods must share.",
    )
