"""Every CEL rule, against the real API server: objects it refuses, with its message, and objects it lets pass."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.component.adapterexport_samples import ADAPTEREXPORT_CASES
from tests.component.adapterrollout_rule_cases import ADAPTERROLLOUT_CASES
from tests.component.api_server import ApiServer
from tests.component.crd_kinds import (
    ADAPTEREXPORT,
    ADAPTERROLLOUT,
    EVALUATION,
    FINETUNEJOB,
    FINETUNESWEEP,
    KINDS,
    REVIEW,
    Kind,
)
from tests.component.crd_samples import DIGEST, Body, change
from tests.component.evaluation_rule_cases import EVALUATION_CASES
from tests.component.finetunesweep_rule_cases import FINETUNESWEEP_CASES
from tests.component.review_samples import REVIEW_CASES
from tests.component.rule_cases import FINETUNEJOB_CASES, Case, Rule

pytestmark = pytest.mark.cluster

CASES: list[tuple[Kind, Rule, Case]] = [
    (kind, rule, case)
    for kind, cases in (
        (FINETUNEJOB, FINETUNEJOB_CASES),
        (FINETUNESWEEP, FINETUNESWEEP_CASES),
        (EVALUATION, EVALUATION_CASES),
        (ADAPTERROLLOUT, ADAPTERROLLOUT_CASES),
        (REVIEW, REVIEW_CASES),
        (ADAPTEREXPORT, ADAPTEREXPORT_CASES),
    )
    for rule, case in cases.items()
]


def stored_name(kind: Kind, given: Body | None) -> str:
    return "rules-full" if given is kind.full else "rules-minimal"


@pytest.fixture(scope="module")
def stored(server: ApiServer) -> Iterator[dict[tuple[str, str], Body]]:
    """Objects in the API server, to be updated: by kind and name."""
    made = {}
    for kind in KINDS:
        for given in (kind.minimal, kind.full):
            name = stored_name(kind, given)
            server.delete(f"{kind.url()}/{name}")
            answer = server.create(kind.url(), change(given, {"metadata.name": name}))
            assert answer.accepted, answer.message
            made[kind.name, name] = answer.body
    yield made
    for kind in KINDS:
        for given in (kind.minimal, kind.full):
            server.delete(f"{kind.url()}/{stored_name(kind, given)}")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_rule_has_a_case_and_every_case_a_rule(kind: Kind) -> None:
    assert {rule for of, rule, _ in CASES if of is kind} == kind.rules


@pytest.mark.parametrize(
    ("kind", "rule", "case"),
    [pytest.param(*each, id=f"{each[0].name} {each[1][0]}: {each[1][1]}") for each in CASES],
)
def test_rule(server: ApiServer, stored: dict[tuple[str, str], Body], kind: Kind, rule: Rule, case: Case) -> None:
    _, message = rule
    assert case.refused
    assert case.passed
    for changes in [*case.refused, *case.passed]:
        if "is immutable" in message:
            name = stored_name(kind, case.given)
            body = change(stored[kind.name, name], changes)
            answer = server.replace(f"{kind.url()}/{name}", body, dryRun="All", fieldValidation="Strict")
        else:
            answer = server.create(
                kind.url(), change(case.given or kind.minimal, changes), dryRun="All", fieldValidation="Strict"
            )
        if changes in case.refused:
            assert not answer.accepted, f"accepted {changes}"
            assert message in answer.message, f"{changes} was refused for another reason: {answer.message}"
        else:
            assert answer.accepted, f"{changes}: {answer.message}"


def test_the_digest_of_a_base_model_cannot_be_added_later(
    server: ApiServer, stored: dict[tuple[str, str], Body]
) -> None:
    """The rule stands at the parent: a transition rule at the field itself would be skipped when it appears."""
    body = change(stored["FineTuneJob", "rules-minimal"], {"spec.baseModel.digest": DIGEST})
    answer = server.replace(f"{FINETUNEJOB.url()}/rules-minimal", body, dryRun="All")
    assert "baseModel is immutable" in answer.message
