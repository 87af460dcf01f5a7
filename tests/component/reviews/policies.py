"""The chart's admission policies in the control plane, as the chart renders them."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from trimtab_operator.domain.review.policies import TAKES_EFFECT_SECONDS

from tests.component.api_server import ApiServer, Body
from tests.component.patience import Patience
from tests.component.review_samples import SUBJECT, review
from tests.unit.chart.chart import NAMESPACE, Rendered

RELEASE = f"trimtab.{NAMESPACE}"
"""What their names begin with: the setting `admissionPolicies`."""
REVIEWS_IN_DEFAULT = "/apis/trimtab.dev/v1alpha1/namespaces/default/reviews"
GROUP = "/apis/admissionregistration.k8s.io/v1"
PLURALS = {
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}


def rendered() -> list[Body]:
    """Return policies and bindings, policies first."""
    chart = Rendered()
    return [body for kind in PLURALS for body in chart.all(kind)]


def path_of(body: Body) -> str:
    return f"{GROUP}/{PLURALS[body['kind']]}/{body['metadata']['name']}"


def install(server: ApiServer) -> None:
    for body in rendered():
        answer = server.apply(path_of(body), body)
        assert answer.accepted, answer.message


def uninstall(server: ApiServer) -> None:
    for body in reversed(rendered()):
        server.delete(path_of(body))
    lose_effect(server)


def lose_effect(server: ApiServer) -> None:
    """Wait until the API server takes a Review in another's name again, by dry runs: it looks at policies by turns."""
    patience = Patience("no policy is in effect any more")
    forged = review({"subject": SUBJECT, "decision": "Approve", "author": "somebody-else"}, name="forged")
    while not (answer := server.create(REVIEWS_IN_DEFAULT, forged, dryRun="All")).accepted:
        patience.spend(answer.message)
        time.sleep(0.1)


def takes_effect(server: ApiServer, url: str, spec: Body) -> None:
    """Wait until the API server refuses what has another author, by dry runs, and the time of grace is over."""
    patience = Patience("the policy takes effect")
    forged = review({**spec, "author": "somebody-else"}, name="forged")
    while server.create(url, forged, dryRun="All").accepted:
        patience.spend(None)
        time.sleep(0.1)
    stored = [server.get(path_of(body)).body["metadata"]["creationTimestamp"] for body in rendered()]
    made = max(map(datetime.fromisoformat, stored))
    patience = Patience("the time of grace")
    while (datetime.now(UTC) - made).total_seconds() < TAKES_EFFECT_SECONDS + 1:
        patience.spend(datetime.now(UTC))
        time.sleep(0.2)
