"""What the tests of the CRDs know of each kind: its CRD, and objects to send."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml
from trimtab_operator.api.definitions.reference import nodes

from tests.component import (
    adapterexport_samples,
    adapterrollout_samples,
    crd_samples,
    evaluation_samples,
    finetunesweep_samples,
    review_samples,
)
from tests.component.crd_samples import Body


@dataclass(frozen=True)
class Kind:
    """A kind of object.

    Attributes:
        variants: objects that, together, have every field of the spec.
        status: with every field.
        embeds: sections that are those of another kind: their bounds are tested there.
    """

    name: str
    plural: str
    minimal: Body
    full: Body
    variants: dict[str, Body]
    status: Body
    embeds: tuple[str, ...] = ()

    @cached_property
    def root(self) -> Body:
        """The schema of the whole object, as it is in crds/."""
        path = Path(__file__).parents[2] / f"crds/trimtab.dev_{self.plural}.yaml"
        crd = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
        schema: Body = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        return schema

    @cached_property
    def rules(self) -> set[tuple[str, str]]:
        """Path and message of every rule."""
        return {
            (path, rule["message"])
            for path, node in nodes(self.root)
            for rule in node.get("x-kubernetes-validations", [])
        }

    def url(self, namespace: str = "default") -> str:
        return f"/apis/trimtab.dev/v1alpha1/namespaces/{namespace}/{self.plural}"


FINETUNEJOB = Kind(
    name="FineTuneJob",
    plural="finetunejobs",
    minimal=crd_samples.MINIMAL,
    full=crd_samples.FULL,
    variants=dict(zip(("fractions", "uris", "folds", "pairs", "labelled"), crd_samples.VARIANTS, strict=True)),
    status=crd_samples.STATUS,
)
EVALUATION = Kind(
    name="Evaluation",
    plural="evaluations",
    minimal=evaluation_samples.MINIMAL,
    full=evaluation_samples.FULL,
    variants=evaluation_samples.VARIANTS,
    status=evaluation_samples.EVALUATION_STATUS,
)
ADAPTERROLLOUT = Kind(
    name="AdapterRollout",
    plural="adapterrollouts",
    minimal=adapterrollout_samples.MINIMAL,
    full=adapterrollout_samples.FULL,
    variants=adapterrollout_samples.VARIANTS,
    status=adapterrollout_samples.ROLLOUT_STATUS,
)
FINETUNESWEEP = Kind(
    name="FineTuneSweep",
    plural="finetunesweeps",
    minimal=finetunesweep_samples.MINIMAL,
    full=finetunesweep_samples.FULL,
    variants=finetunesweep_samples.VARIANTS,
    status=finetunesweep_samples.STATUS,
    embeds=(
        "spec.template.spec",
        "spec.objective.evaluation.tasks[]",
        "spec.final.evaluation.tasks[]",
        "spec.final.evaluation.thresholds[]",
        "spec.final.evaluation.baseline",
    ),
)
REVIEW = Kind(
    name="Review",
    plural="reviews",
    minimal=review_samples.MINIMAL,
    full=review_samples.FULL,
    variants={"full": review_samples.FULL},
    status=review_samples.STATUS,
)
ADAPTEREXPORT = Kind(
    name="AdapterExport",
    plural="adapterexports",
    minimal=adapterexport_samples.MINIMAL,
    full=adapterexport_samples.FULL,
    variants=adapterexport_samples.VARIANTS,
    status=adapterexport_samples.EXPORT_STATUS,
)
KINDS = (FINETUNEJOB, FINETUNESWEEP, EVALUATION, ADAPTERROLLOUT, REVIEW, ADAPTEREXPORT)
