"""`Claim`: that an AdapterRollout has a name on some pods, whether or not the rest of it is understood here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..plan import Body


@dataclass(frozen=True)
class Claim:
    """What decides between rollouts of one adapterName. A version that does not know a value of the older one would
    let the younger have its pods otherwise, and the next version would take them back.
    """

    uid: str
    name: str
    created: str
    adapter_name: str
    match_labels: Mapping[str, str]

    @classmethod
    def of(cls, body: Body) -> Claim:
        """Return that of an object as the API server has it."""
        metadata, spec = body["metadata"], body.get("spec", {})
        return cls(
            uid=metadata["uid"],
            name=metadata["name"],
            created=metadata.get("creationTimestamp", ""),
            adapter_name=spec.get("adapterName", ""),
            match_labels=spec.get("serving", {}).get("selector", {}).get("matchLabels", {}),
        )

    def is_older(self, created: str, uid: str) -> bool:
        """Tell whether it came before another one."""
        return (self.created, self.uid) < (created, uid)

    def may_share_pods(self, labels: Mapping[str, str]) -> bool:
        """Labels that differ in one key select different pods; all else may meet, now or at the next scale-up."""
        return all(labels.get(key, value) == value for key, value in self.match_labels.items())
