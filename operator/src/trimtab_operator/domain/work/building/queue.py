"""What Kueue reads: labels and annotations of the object go to its Jobs, and annotations to their pod templates too.

Kueue looks at a Job's labels (queue, priority, longest time) and annotations, and for topology at the annotations of
the pod template; which of them it knows is its own business, so its whole domain is passed on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from trimtab_operator.api.definitions.customresource import ObjectMeta

from ...views import QUEUE_TRACES

QUEUE_MINIMUM = "kueue.x-k8s.io/job-min-parallelism"
"""Annotation of a Job that Kueue may admit with fewer pods than it asks for."""
_DOMAIN = re.compile(r"([^/]*\.)?kueue\.x-k8s\.io/.+")


def is_of_queue(key: str) -> bool:
    """Tell whether a label or annotation of the object is for Kueue, and passed on."""
    return _DOMAIN.fullmatch(key) is not None and key not in QUEUE_TRACES


def queue_labels(metadata: ObjectMeta) -> dict[str, str]:
    return _of_queue(metadata.labels)


def queue_annotations(metadata: ObjectMeta) -> dict[str, str]:
    return _of_queue(metadata.annotations)


def _of_queue(given: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in given.items() if is_of_queue(key)}
