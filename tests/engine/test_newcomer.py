"""The quickstart with everything real: training on the node, the gate, vLLM, and an answer of the adapter."""

from __future__ import annotations

import json
import random
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from trimtab_trainer.data.reading.preferences import Reader

from deploy.demo.api import Body
from deploy.demo.installation import ADMIN, SERVICE_URL, Installation, restricted_namespace
from deploy.demo.mirror import Mirror
from tests.component.patience import Patience
from tests.console.conftest import opened
from tests.console.test_day import clean
from tests.e2e.tenants import MIRRORED, ON_A_NODE, Tenant, condition, succeeded
from tests.engine.markers import BASE_MODEL, base_model, upload
from tests.engine.serving import ENGINE_SECONDS
from tests.quickstart import Newcomer

pytestmark = ON_A_NODE

ROWS = 640
"""Of which one in twenty is held out, and 20 decide the gate."""
SYLLABLES = ("ba", "di", "fo", "gu", "ke", "la", "mi", "no", "pu", "re", "sa", "ti", "vo", "wu", "ze")


@pytest.fixture
def tenant(installation: Installation) -> Iterator[Tenant]:
    """A namespace with nothing in it, not even keys."""
    if installation.cluster is None:
        pytest.skip("needs the local cluster: base model and rows lie where the quickstart has them")
    name = f"e2e-{secrets.token_hex(4)}"
    installation.api.apply(restricted_namespace(name))
    made = Tenant(installation, name, Mirror(installation.api, name, MIRRORED))
    try:
        yield made
    finally:
        made.remove()


def put_what_the_quickstart_reads(installation: Installation, base: Path) -> None:
    """Upload the base model and rows."""
    with installation.storage() as client:
        upload(client, base)
        for file in base.iterdir():
            client.upload_file(str(file), "models", f"base/{file.name}")
        rows = [row(random.Random(number)) for number in range(ROWS)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        client.put_object(Bucket="datasets", Key="rows/rows.jsonl", Body=text.encode())


def row(dice: random.Random) -> Body:
    """Return a row that is like no other: near duplicates would all lie on one side of the split."""
    words = ["".join(dice.choice(SYLLABLES) for _ in range(3)) for _ in range(10)]
    asked, told = " ".join(words[:5]), " ".join(words[5:])
    return {"messages": [{"role": "user", "content": f"What follows {asked}?"}, {"role": "assistant", "content": told}]}


def serves(body: Body) -> bool:
    return condition(body, "Ready").get("status") == "True"


def test_from_an_empty_namespace_to_an_answer_of_the_adapter(
    installation: Installation, tenant: Tenant, tmp_path: Path
) -> None:
    base = base_model()
    put_what_the_quickstart_reads(installation, base)
    shutil.copyfile(base / "config.json", tmp_path / "config.json")
    keys = {
        "AWS_ACCESS_KEY_ID": ADMIN.access,
        "AWS_SECRET_ACCESS_KEY": ADMIN.secret,
        "AWS_ENDPOINT_URL": SERVICE_URL,
        "AWS_REGION": "us-east-1",
    }
    types = Newcomer(installation.kubeconfig, tenant.namespace, tmp_path, keys).types

    assert types("keys").startswith("secret/object-storage created")
    installation.install_serving(tenant.namespace, replicas=1)
    types("new")
    assert types("check") == ""
    assert "ACCELERATOR" in types("estimate")
    assert types("apply").splitlines() == [
        f"{kind}/guide created" for kind in ("finetunejob", "evaluation", "adapterrollout")
    ]

    the_curve_moves(installation.kubeconfig, tenant.namespace, tmp_path)
    tenant.of("FineTuneJob").wait_reason("guide", "Completed")
    assert "Completed" in types("describe")
    tenant.of("Evaluation").wait("guide", "a verdict", lambda body: succeeded(body) != "Unknown", ENGINE_SECONDS)
    tenant.of("AdapterRollout").wait("guide", "the adapter served", serves, ENGINE_SECONDS)
    listed = types("list")
    assert re.search(r"^evaluation/guide +Completed +True", listed, re.MULTILINE), listed
    assert re.search(r"^adapterrollout/guide +Serving +True", listed, re.MULTILINE), listed
    answers = types("ask", 600)
    assert answers.startswith(f"== {BASE_MODEL}\n"), answers
    assert re.search(r"^== guide \(guide@[0-9a-f]{8}\)\n.+", answers, re.MULTILINE), answers
    answers_in_the_playground(installation.kubeconfig, tenant.namespace, tmp_path)


def the_curve_moves(kubeconfig: Path, namespace: str, folder: Path) -> None:
    """Look at the run's page while it trains: steps and points of the curve come by themselves."""
    points = "JSON.parse(document.querySelector('trimtab-curve')?.dataset.series ?? '[]')[0]?.points.length ?? 0"
    with opened(kubeconfig, folder / "watching") as page:
        page.visit(f"/ns/{namespace}/finetunejobs/guide", "document.body.innerText.includes('guide')")
        began = page.run("performance.timeOrigin")
        patience, seen = Patience("a curve that moves"), set[int]()
        while len(seen) < 3:
            seen.add(page.run(points))
            patience.spend((len(seen), page.text()))
            time.sleep(0.2)
        assert page.run("performance.timeOrigin") == began, "the page was not loaded again"
        page.picture(folder / "live.png")
        clean(page)


def answers_in_the_playground(kubeconfig: Path, namespace: str, folder: Path) -> None:
    """Ask base and adapter side by side from the console's page, prefer, and download what training reads."""
    asked = "[...document.querySelectorAll('.answer .said')].map((each) => each.textContent)"
    with opened(kubeconfig, folder / "browser") as page:
        page.visit(f"/ns/{namespace}/playground?rollout=guide")
        offered = page.run("[...document.querySelectorAll('input[name=model]')].map((each) => each.value)")
        assert {BASE_MODEL, "guide"} <= set(offered)
        page.type("#text", "What follows bafogu?")
        page.run("document.querySelector('input[name=tokens]').value = 24; document.getElementById('ask').click()")
        patience = Patience("both answers")
        while page.run("document.getElementById('ask').disabled"):
            patience.spend(str(page.run(asked)))
            time.sleep(0.2)
        said = page.run(asked)
        assert len(said) >= 2
        assert all(each.strip() for each in said), page.text()
        assert len(set(said)) > 1, "the adapter learned something"
        page.run("document.querySelector('.better:not([hidden])').click()")
        page.downloads(folder)
        page.click("#download", "true")
        while not (found := list(folder.glob("preferences-*.jsonl"))):
            patience.spend(len(list(folder.iterdir())))
            time.sleep(0.1)
        pairs = [Reader("row").pair(json.loads(line)) for line in found[0].read_text().splitlines()]
        assert pairs
        clean(page)
