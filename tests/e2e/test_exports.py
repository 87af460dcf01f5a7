"""An adapter that was trained in a pod becomes a model of its own in another one, which transformers loads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from deploy.demo.api import Body
from deploy.demo.installation import Installation
from tests.e2e.scenes import SAMPLE
from tests.e2e.tenants import ON_A_NODE, SMALL, Tenant, new_tenant, reason_of

pytestmark = ON_A_NODE


@pytest.fixture(scope="module")
def sealed(installation: Installation) -> Iterator[Tenant]:
    """A namespace that denies everything but what the samples allow, with a run that has ended."""
    tenant = new_tenant(installation)
    tenant.apply(*tenant.policies(SAMPLE.read_text()), tenant.job("trained", steps=5))
    assert reason_of(tenant.wait_end("trained")) == "Completed", tenant.story("trained")
    yield tenant
    tenant.remove()


def export(tenant: Tenant, name: str, **spec: object) -> Body:
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "AdapterExport",
        "metadata": {"name": name, "namespace": tenant.namespace},
        "spec": {
            "source": {"fineTuneJobName": "trained"},
            "destination": {"uri": f"s3://models/{tenant.namespace}", "secretName": "object-storage"},
            "template": {"resources": {"limits": {"cpu": "2", "memory": "2Gi"}, "requests": SMALL}},
            **spec,
        },
    }


def test_a_pod_makes_a_model_of_an_adapter_and_its_base(sealed: Tenant, tmp_path: Path) -> None:
    exports = sealed.of("AdapterExport")
    exports.apply(export(sealed, "whole"))
    body = exports.wait_end("whole")
    assert reason_of(body) == "Completed", exports.story("whole")
    made = body["status"]["artifact"]
    assert made["adapterDigest"] == sealed.get("trained")["status"]["artifact"]["digest"]
    (pod,) = exports.pods("whole")
    assert "nvidia.com/gpu" not in pod["spec"]["containers"][0]["resources"]["limits"]
    prefix = made["uri"].removeprefix("s3://models/")
    with sealed.installation.storage() as client:
        found = client.list_objects_v2(Bucket="models", Prefix=f"{prefix}/")["Contents"]
        assert sum(each["Size"] for each in found) >= made["sizeBytes"] > 0
        for each in found:
            client.download_file("models", each["Key"], str(tmp_path / each["Key"].rpartition("/")[2]))
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template
    assert sum(weights.numel() for weights in model.parameters()) > 0


def test_what_the_storage_refuses_is_told(sealed: Tenant) -> None:
    exports = sealed.of("AdapterExport")
    nowhere = {"uri": "s3://no-such-bucket/a", "secretName": "object-storage"}
    exports.apply(export(sealed, "nowhere", destination=nowhere))
    body = exports.wait_end("nowhere")
    assert reason_of(body) == "BucketNotFound", exports.story("nowhere")
