"""`make demo`: from nothing to an adapter that passed its gate and answers, in a real cluster.

Prints what it does with the seconds since the start. The last lines are the adapter's address, the verdict of its
evaluation against the base model on rows that neither was trained on, and their answers to the same question.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from trimtab_local.instance import cache

from deploy.demo.installation import ADMIN, ROOT, Failed, Installation, open_installation, restricted_namespace, say

NAMESPACE = "field-guide"
QUESTION = "What is spec.backoffLimit of a Job for?"
SAMPLES = ROOT / "deploy/samples"
TRAINING_MINUTES = 20
EVALUATION_MINUTES = 15


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description="From nothing to an adapter that answers.")
    parser.add_argument("--sample", type=Path, default=SAMPLES / "finetunejob.yaml", help="FineTuneJob to run")
    parser.add_argument(
        "--evaluation", type=Path, default=SAMPLES / "evaluation.yaml", help="Evaluation of its adapter"
    )
    parser.add_argument("--question", default=QUESTION, help="what to ask the base model and the adapter")
    return parser.parse_args()


def upload(here: Installation) -> None:
    """Put the base model and the rows into the object storage; the cluster documents itself."""
    model = cache() / "models" / "smollm2-135m-instruct"
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": ADMIN.access, "AWS_SECRET_ACCESS_KEY": ADMIN.secret}
    with here.storage() as client, tempfile.TemporaryDirectory() as folder:
        environment |= {"AWS_ENDPOINT_URL": client.meta.endpoint_url, "AWS_REGION": "us-east-1"}
        openapi = Path(folder) / "openapi.json"
        openapi.write_text(here.kubectl("get", "--raw", "/openapi/v2"))
        for line in (
            [SAMPLES / "convert_base_model.py", "--folder", model, "--upload", "s3://models/smollm2-135m-instruct"],
            [SAMPLES / "field_guide.py", "--openapi", openapi, "--upload", "s3://datasets/field-guide/train/"],
        ):
            done = subprocess.run(
                [sys.executable, *map(str, line)], env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise Failed(f"{line[0]}: {done.stderr.strip()[-2000:]}")
            for text in done.stdout.strip().splitlines():
                say(f"  {text}")


def follow(here: Installation, kind: str, name: str, minutes: float) -> dict[str, Any]:
    """Tell the story of a FineTuneJob or an Evaluation as it moves, and return it when it has ended."""
    told = ""
    deadline = time.monotonic() + minutes * 60
    while time.monotonic() < deadline:
        found = here.get(kind, name, NAMESPACE)
        if found is not None:
            line = here.kubectl("-n", NAMESPACE, "get", kind, name, "--no-headers").strip()
            story = " ".join(line.split()[:-1])  # the age alone is no news
            if story != told:
                say(f"  {line}")
                told = story
            succeeded = condition(found, "Succeeded")
            if succeeded.get("status") == "True":
                return found
            if succeeded.get("status") == "False":
                raise Failed(f"{succeeded['reason']}: {succeeded['message']}")
        time.sleep(1)
    raise Failed(f"{kind} {name} took more than {minutes} minutes; see kubectl -n {NAMESPACE} describe {kind} {name}")


def condition(body: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a condition of an object, empty if it has none of this type."""
    conditions = body.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == name), {})


def apply(here: Installation, *samples: Path) -> list[str]:
    """Apply the manifests in the demo's namespace and return the names of the objects."""
    bodies = [yaml.safe_load(sample.read_text()) for sample in samples]
    for body in bodies:
        body["metadata"]["namespace"] = NAMESPACE
    here.apply(*bodies)
    say("kubectl apply " + " ".join(f"-f {sample.relative_to(ROOT)}" for sample in samples))
    return [body["metadata"]["name"] for body in bodies]


def ask(here: Installation, adapter: str, question: str) -> str:
    """Ask the base model and the adapter in a pod of the cluster, and return their answers."""
    text = (SAMPLES / "ask.yaml").read_text()
    body = yaml.safe_load(text.replace("ADAPTER", adapter).replace("IMAGE", here.images["trainer"]))
    body["metadata"]["namespace"] = NAMESPACE
    container = body["spec"]["template"]["spec"]["containers"][0]
    container["args"] = [question if value == "QUESTION" else value for value in container["args"]]
    name = body["metadata"]["name"]
    here.kubectl("-n", NAMESPACE, "delete", "job", name, "--ignore-not-found", "--wait=true")
    here.apply(body)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        status = (here.get("job", name, NAMESPACE) or {}).get("status", {})
        if status.get("succeeded"):
            return here.kubectl("-n", NAMESPACE, "logs", f"job/{name}")
        if status.get("failed"):
            raise Failed(here.kubectl("-n", NAMESPACE, "logs", f"job/{name}"))
        time.sleep(1)
    raise Failed(f"no answer: see kubectl -n {NAMESPACE} describe job {name}")


def main() -> None:
    chosen = arguments()
    say("cluster")
    here = open_installation()
    say("object storage")
    here.install_storage()
    say("Trimtab: helm upgrade --install trimtab charts/trimtab")
    here.install_chart()
    here.apply(restricted_namespace(NAMESPACE))
    here.apply(here.secret(NAMESPACE))
    say("data: the API server's own documentation as questions and answers; the base model from its package")
    upload(here)
    training, evaluating = apply(here, chosen.sample, chosen.evaluation)
    job = follow(here, "finetunejob", training, TRAINING_MINUTES)
    evaluation = follow(here, "evaluation", evaluating, EVALUATION_MINUTES)
    artifact = job["status"]["artifact"]
    say("asking the base model and the adapter")
    answers = ask(here, artifact["uri"], chosen.question)
    print()
    print(here.kubectl("-n", NAMESPACE, "get", "finetunejobs").strip())
    print()
    print(here.kubectl("-n", NAMESPACE, "get", "evaluations").strip())
    print()
    print(f"adapter     {artifact['uri']}")
    print(f"digest      {artifact['digest']}")
    base, tuned = math.exp(artifact["baseTestLoss"]), math.exp(artifact["testLoss"])
    print(f"perplexity  on {job['status']['dataset']['testRows']} held-out rows: base {base:.2f}, adapter {tuned:.2f}")
    verdict = condition(evaluation, "Passed")
    print(f"verdict     {verdict['reason']}: {verdict['message']}")
    print(f"report      {evaluation['status']['reportURI']}")
    print()
    print(answers.strip())
    print()
    print(f"next: export KUBECONFIG={here.kubeconfig}")
    print(f"      kubectl -n {NAMESPACE} describe finetunejob {training}")
    print(f"      kubectl -n {NAMESPACE} describe evaluation {evaluating}")


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        sys.exit(f"failed: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
