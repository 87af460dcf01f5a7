"""Tools that create again what is deleted, because it is still in Git or part of something: how they mark it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain

MARKS = (
    "argocd.argoproj.io/tracking-id",
    "argocd.argoproj.io/instance",
    "kustomize.toolkit.fluxcd.io/name",
    "helm.toolkit.fluxcd.io/name",
    "resourceset.fluxcd.controlplane.io/name",
    "kluctl.io/discriminator",
    "configsync.gke.io/resource-id",
    "configmanagement.gke.io/managed",
    "objectset.rio.cattle.io/hash",
    "kapp.k14s.io/app",
    "crossplane.io/composite",
    "karmada.io/managed",
    "kro.run/owned",
    "app.oam.dev/name",
    "projectsveltos.io/reference-name",
)
"""Labels and annotations that only such a tool writes. `app.kubernetes.io/instance`, which Argo CD before 3.0 used, is
none: charts and people write it too. Who tracks by such a label says so (`Settings.gitops_labels`)."""


def tracked_by(labels: Mapping[str, str], annotations: Mapping[str, str], more: Iterable[str] = ()) -> str | None:
    """Return the mark by which a tool keeps an object, None without any; `more` are labels that are one here."""
    marks = (mark for mark in MARKS if mark in labels or mark in annotations)
    return next(chain(marks, (label for label in more if label in labels)), None)
