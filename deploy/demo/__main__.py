"""`make demo`: from nothing to an adapter that is trained, judged, served, and stays served when a worse one comes.

Everything happens in a real cluster with a real engine. Prints what it does with the seconds since the start. The last
lines are the adapter's address, the verdict of its evaluation, what the worse adapter came to, and the answers of the
base model and of the adapter to the same question, asked by name through the engine's Service.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml
from trimtab_local import images as image_builder
from trimtab_local.instance import cache
from trimtab_local.progress import Failed

from deploy.demo.api import Body
from deploy.demo.installation import (
    ADMIN,
    ENGINE,
    ENGINE_PORT,
    ROOT,
    SERVING,
    Forward,
    Installation,
    open_installation,
    restricted_namespace,
    say,
)
from deploy.demo.mirror import Mirror

NAMESPACE = "field-guide"
QUESTION = "What is spec.backoffLimit of a Job for?"
SAMPLES = ROOT / "deploy/samples"
DISK_GB, BUILD_GB = 25, 12
"""Measured with du on a machine that had none of it."""
QUIET_MINUTES = 15
"""How long nothing may move: a task of an evaluation, or an engine's start, takes minutes on a small machine."""
BASE = "smollm2-135m-instruct"
"""What the engine calls its base model."""
IMPOSSIBLE = "only a correct answer says this"
"""A probe that no adapter here can pass."""
WIDTH = 48


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description="From nothing to an adapter that serves.")
    parser.add_argument("--sample", type=Path, default=SAMPLES / "finetunejob.yaml", help="FineTuneJob to run")
    parser.add_argument(
        "--evaluation", type=Path, default=SAMPLES / "evaluation.yaml", help="Evaluation of its adapter"
    )
    parser.add_argument("--rollout", type=Path, default=SAMPLES / "adapterrollout.yaml", help="AdapterRollout of it")
    parser.add_argument("--worse", type=Path, default=SAMPLES / "worse.yaml", help="what the gate holds")
    parser.add_argument(
        "--sweep",
        type=Path,
        nargs="?",
        const=SAMPLES / "finetunesweep.yaml",
        help="at the end a search of the best settings too, of this FineTuneSweep",
    )
    parser.add_argument("--question", default=QUESTION, help="what to ask the base model and the adapter")
    return parser.parse_args()


def say_disk() -> None:
    """Say how much the demonstration takes, and of what."""
    cache().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache()).free / 1e9
    memory = image_builder.PLENTY >> 30
    say(f"disk: {DISK_GB} GB the first time, in {cache()} and in the caches of Go and uv; {free:.0f} GB are free")
    say(f"      {BUILD_GB} more while images are built, where less than {memory} GiB of memory are free")


def begin(script: str, *line: str | Path, **variables: str) -> subprocess.Popen[str]:
    """Start one of the sample scripts."""
    command = [sys.executable, str(SAMPLES / script), *map(str, line)]
    environment = {**os.environ, **variables}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for a script and tell what it said."""
    said, errors = process.communicate()
    if process.returncode:
        raise Failed(f"exit {process.returncode}: {errors.strip()[-2000:]}")
    for text in said.strip().splitlines():
        say(f"  {text}")


def upload(here: Installation, folder: Path) -> None:
    """Put the base model and the rows into the object storage; the cluster documents itself."""
    with here.storage() as client, tempfile.TemporaryDirectory() as scratch:
        openapi = Path(scratch) / "openapi.json"
        openapi.write_text(here.kubectl("get", "--raw", "/openapi/v2"))
        variables = {
            "AWS_ACCESS_KEY_ID": ADMIN.access,
            "AWS_SECRET_ACCESS_KEY": ADMIN.secret,
            "AWS_ENDPOINT_URL": client.meta.endpoint_url,
            "AWS_REGION": "us-east-1",
        }
        model = ("--folder", folder, "--upload", "s3://models/smollm2-135m-instruct")
        rows = ("--openapi", openapi, "--upload", "s3://datasets/field-guide/train/")
        finish(begin("convert_base_model.py", *model, **variables))
        finish(begin("field_guide.py", *rows, **variables))


def bring_pages(here: Installation, uris: dict[str, str]) -> list[tuple[str, Path]]:
    """Download pages, to be opened; return the title of each with its file."""
    folder, brought = cache() / "demo", list[tuple[str, Path]]()
    folder.mkdir(parents=True, exist_ok=True)
    with here.storage() as client:
        for title, uri in uris.items():
            bucket, _, key = uri.removeprefix("s3://").partition("/")
            file = folder / f"{title}.html"
            client.download_file(bucket, key, str(file))
            brought.append((title, file))
    return brought


class Stage:
    """The demo's namespace: what is in it, and how it moves."""

    def __init__(self, here: Installation) -> None:
        self.here = here
        self.api = here.api
        kinds = ("FineTuneJob", "Evaluation", "AdapterRollout", "FineTuneSweep", "Job", "Pod")
        self.mirror = Mirror(here.api, NAMESPACE, kinds)

    def follow(self, kind: str, name: str, ended: Callable[[Body], bool]) -> Body:
        """Tell the story of an object as it moves, and return it when it has ended."""
        told: list[str] = []

        def look() -> Body | None:
            found = self.mirror.get(kind, name)
            if found is None:
                return None
            *story, age = self.api.row(kind, name, NAMESPACE)  # the age alone is no news
            if story != told:
                say("  " + "   ".join([*story, age]))
                told[:] = story
            return found if ended(found) else None

        return self.mirror.wait(f"{kind} {name}", look, QUIET_MINUTES * 60)

    def apply(self, *samples: Path, kind: str = "") -> list[str]:
        """Apply manifests, all at once or those of a kind; return the names of the objects."""
        bodies = [body for sample in samples for body in yaml.safe_load_all(sample.read_text())]
        bodies = [body for body in bodies if kind in ("", body["kind"])]
        for body in bodies:
            body["metadata"]["namespace"] = NAMESPACE
        self.api.apply(*bodies)
        files = " ".join(f"-f {sample.relative_to(ROOT)}" for sample in samples)
        say(f"kubectl apply {files}" + (f", of which the {kind}" if kind else ""))
        return [body["metadata"]["name"] for body in bodies]


def succeeded(body: Body) -> bool:
    """Tell whether work has ended well.

    Raises:
        Failed: it has ended otherwise.
    """
    found = condition(body, "Succeeded")
    if found.get("status") == "False":
        raise Failed(f"{found['reason']}: {found['message']}")
    return found.get("status") == "True"


def serving(body: Body) -> bool:
    return condition(body, "Ready").get("status") == "True"


def rolled_back(body: Body) -> bool:
    return condition(body, "Ready").get("reason") == "RolledBack"


def condition(body: Body, name: str) -> Body:
    """Return a condition of an object, empty if it has none of this type."""
    conditions = body.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == name), {})


@dataclass(frozen=True)
class Answer:
    """What a client of the engine gets: the text, and the revision that the guard says gave it."""

    text: str
    revision: str


def ask(engine: Forward, model: str, question: str) -> Answer:
    """Ask as any client of the OpenAI API does."""
    message = {"model": model, "max_tokens": 32, "temperature": 0, "messages": [{"role": "user", "content": question}]}
    request = urllib.request.Request(
        f"{engine.url}/v1/chat/completions", json.dumps(message).encode(), {"Content-Type": "application/json"}
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                body = json.load(response)
                text = " ".join(body["choices"][0]["message"]["content"].split())
                return Answer(text, response.headers.get("x-trimtab-revision", model))
        except (urllib.error.URLError, ConnectionError) as error:
            if isinstance(error, urllib.error.HTTPError) or time.monotonic() > deadline:
                raise Failed(f"{model} does not answer: {error}") from error
            engine.ensure()
            time.sleep(0.5)


def side_by_side(left: tuple[str, str], right: tuple[str, str]) -> str:
    """Return two titled texts in two columns."""
    columns = [[title, *textwrap.wrap(text, WIDTH)] for title, text in (left, right)]
    rows = max(len(column) for column in columns)
    padded = [[*column, *[""] * (rows - len(column))] for column in columns]
    lines = [f"{one:<{WIDTH}} | {two}".rstrip() for one, two in zip(*padded, strict=True)]
    return "\n".join([lines[0], f"{'-' * WIDTH}-+-{'-' * WIDTH}", *lines[1:]])


def force_through(stage: Stage, rollout: str, artifact: Body) -> Body:
    """Name an adapter in the rollout, past the gate, with a probe that it cannot pass; put the spec back at the end."""
    before = stage.api.get("AdapterRollout", rollout, NAMESPACE)
    assert before is not None, "it was just applied"
    source = {"artifact": {"uri": artifact["uri"], "digest": artifact["digest"]}, "follow": None}
    patch = {"spec": {"source": source, "probe": {"contains": IMPOSSIBLE}}}
    stage.api.patch("AdapterRollout", rollout, NAMESPACE, patch)
    say(f"kubectl patch arl {rollout}: spec.source.artifact is the worse adapter, with a probe that it cannot pass")
    found = stage.follow("AdapterRollout", rollout, rolled_back)
    back = {"spec": {"source": {"artifact": None, **before["spec"]["source"]}, "probe": {"contains": None}}}
    stage.api.patch("AdapterRollout", rollout, NAMESPACE, back)
    stage.follow("AdapterRollout", rollout, serving)
    return found


def main() -> None:
    chosen = arguments()
    if not os.environ.get("KUBECONFIG"):
        say_disk()
    say("cluster")
    folder = cache() / "models" / "smollm2-135m-instruct"
    conversion = begin("convert_base_model.py", "--folder", folder)  # beside all that has to be there before it is used
    here = open_installation()
    say("object storage")
    here.install_storage()
    say("Trimtab: helm upgrade --install trimtab charts/trimtab")
    here.install_chart()
    here.api.apply(restricted_namespace(NAMESPACE), here.secret(NAMESPACE))
    say("data: the API server's own documentation as questions and answers; the base model from its package")
    finish(conversion)
    upload(here, folder)
    say(f"engine: kubectl apply -k {SERVING.relative_to(ROOT)}")
    here.install_serving(NAMESPACE, replicas=1)
    stage = Stage(here)
    training, evaluating, rollout = stage.apply(chosen.sample, chosen.evaluation, chosen.rollout)
    job = stage.follow("FineTuneJob", training, succeeded)
    stage.apply(chosen.worse, kind="FineTuneJob")  # it trains while the first adapter is judged
    evaluation = stage.follow("Evaluation", evaluating, succeeded)
    stage.follow("AdapterRollout", rollout, serving)
    artifact = job["status"]["artifact"]
    with here.forward(NAMESPACE, ENGINE, ENGINE_PORT) as engine:
        say(f"asking {BASE} and {rollout} through {ENGINE}")
        plain, first = ask(engine, BASE, chosen.question), ask(engine, rollout, chosen.question)
        told = hold_the_worse(stage, chosen.worse, rollout)
        again = ask(engine, rollout, chosen.question)
        told.append(f"answers     by {first.revision} before, by {again.revision} after: the same")
        if again != first:
            raise Failed(f"the worse adapter changed what is answered: {again}")
    pages = {
        "data": job["status"]["dataset"]["reportURI"],
        "training": artifact["reportURI"],
        "evaluation": evaluation["status"]["reportURI"],
    }
    kinds = ["finetunejobs", "evaluations", "adapterrollouts"]
    if chosen.sweep is not None:
        searched, pages["search"] = search(stage, chosen.sweep)
        told.append(searched)
        kinds.append("finetunesweeps")
    print()
    for kind in kinds:
        print(here.kubectl("-n", NAMESPACE, "get", kind).strip())
        print()
    print(f"adapter     {artifact['uri']}")
    print(f"digest      {artifact['digest']}")
    figure = evaluation["status"]["results"][0]  # of the verdict's rows; the run itself has measured others
    base, tuned = figure["baseline"], figure["value"]
    print(f"perplexity  on {figure['count']} held-out rows: base {base:.2f}, adapter {tuned:.2f}")
    verdict = condition(evaluation, "Passed")
    print(f"verdict     {verdict['reason']}: {verdict['message']}")
    print("\n".join(told))
    for title, file in bring_pages(here, pages):
        print(f"{title:<11} {file}")
    print()
    print(chosen.question)
    print()
    print(side_by_side((BASE, plain.text), (first.revision, first.text)))
    print()
    print("next:")
    for described in (f"finetunejob {training}", f"evaluation {evaluating}", f"adapterrollout {rollout}"):
        print(f"{here.kubectl_command} -n {NAMESPACE} describe {described}")
    if here.cluster is not None:
        print(f"make -C {ROOT} cluster-down")


def hold_the_worse(stage: Stage, sample: Path, rollout: str) -> list[str]:
    """Judge a worse adapter: the gate holds it. Then force it through: the canary refuses it."""
    training, evaluating = stage.apply(sample)
    job = stage.follow("FineTuneJob", training, succeeded)
    evaluation = stage.follow("Evaluation", evaluating, succeeded)
    verdict = condition(evaluation, "Passed")
    if verdict["status"] != "False":
        raise Failed(f"the worse adapter passed: {verdict['message']}")
    forced = condition(force_through(stage, rollout, job["status"]["artifact"]), "Ready")
    return [
        f"worse       {verdict['reason']}: {verdict['message']}",
        f"forced      {forced['reason']}: {forced['message']}",
    ]


def search(stage: Stage, sample: Path) -> tuple[str, str]:
    """Let a sweep search, and return what it found, and where its page is."""
    (name,) = stage.apply(sample)
    status = stage.follow("FineTuneSweep", name, succeeded)["status"]
    if "reportURI" not in status:
        raise Failed(f"the page of the search was not written: {status['conditions']}")
    best = status["best"]
    settings = ", ".join(f"{each} = {value}" for each, value in best["parameters"].items())
    found = (
        f"search      {len(status['trials'])} trials; the best has {status['metric']} {best['value']:.4g}: {settings}"
    )
    return found, status["reportURI"]


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        sys.exit(f"failed: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
