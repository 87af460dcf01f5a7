"""An installation of Trimtab with an object storage beside it; the demonstration and the end-to-end tests share it.

With KUBECONFIG set it uses that cluster, else it starts the local one.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import boto3
import botocore.exceptions
import yaml
from botocore.config import Config
from mypy_boto3_s3 import S3Client
from trimtab_local import Cluster
from trimtab_local import images as image_builder
from trimtab_local.progress import Failed

from deploy.demo.api import Api, Body
from deploy.demo.mirror import QUIET_SECONDS, Mirror

ROOT = Path(__file__).parents[2]
SYSTEM, STORAGE = "trimtab-system", "trimtab-storage"
SERVICE_URL = f"http://s3.{STORAGE}.svc:8333"
BUCKETS = ("datasets", "models", "adapters")
PRODUCT_IMAGES = ("operator", "prepare", "trainer")
CLUSTER_IMAGES = ("seaweedfs", "vllm-cpu")
"""Beside the product: object storage, and an engine for machines without GPUs."""
TORCH_IMAGES = ("trainer", "vllm-cpu")
SERVING = ROOT / "deploy/serving/kustomize/overlays/cpu"
ENGINE, ENGINE_PORT = "service/inference", 8000

_STARTED = time.monotonic()


def say(text: str) -> None:
    """Print a line of progress with the seconds since the start."""
    print(f"[{time.monotonic() - _STARTED:6.1f} s] {text}", flush=True)


class Forward:
    """A running `kubectl port-forward`; it ends when the pod refuses a connection, as one does at first."""

    def __init__(self, line: list[str], environment: dict[str, str], url: str) -> None:
        self.url = url
        self._line = line
        self._environment = environment
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self._environment)

    def ensure(self) -> None:
        """Begin it again if it has ended."""
        if self._process.poll() is not None:
            self._process = self._start()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


@dataclass(frozen=True)
class Keys:
    """An access key of the object storage."""

    access: str
    secret: str


ADMIN = Keys("trimtab-admin", "local-admin-secret")


@dataclass
class Installation:
    """Tools and facts of one installation.

    Attributes:
        images: full names by product image.
        cluster: the local cluster, None where KUBECONFIG names another.
    """

    kubeconfig: Path
    kubectl_path: Path
    helm_path: Path
    images: dict[str, str]
    cluster: Cluster | None

    @property
    def kubectl_command(self) -> str:
        """Return how a person calls kubectl for this cluster, whatever is on the PATH."""
        return "kubectl" if self.cluster is None else str(self.cluster.instance.kubectl)

    @cached_property
    def api(self) -> Api:
        return Api(self.kubeconfig)

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl and return what it prints; raises Failed with its words."""
        return self._run([str(self.kubectl_path), *arguments], stdin, check)

    def helm(self, *arguments: str) -> str:
        return self._run([str(self.helm_path), *arguments], None, True)

    def _run(self, line: list[str], stdin: str | None, check: bool) -> str:
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run(line, input=stdin, capture_output=True, text=True, env=environment, check=False)
        if check and done.returncode:
            raise Failed(f"{Path(line[0]).name} {' '.join(line[1:6])}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def wait_available(self, namespace: str, deployment: str, quiet: float = QUIET_SECONDS) -> None:
        """Wait until a Deployment runs as it was last written, and nothing of what it was before."""
        with Mirror(self.api, namespace, ("Deployment", "Pod")) as mirror:
            mirror.wait(f"deployment {deployment}", lambda: available(mirror.get("Deployment", deployment)), quiet)

    @contextmanager
    def forward(self, namespace: str, target: str, port: int) -> Iterator[Forward]:
        """Forward a local port to a Service or a pod; it is begun again by whoever finds that it ended."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            local = probe.getsockname()[1]
        line = [str(self.kubectl_path), "-n", namespace, "port-forward", target, f"{local}:{port}"]
        forward = Forward(line, {**os.environ, "KUBECONFIG": str(self.kubeconfig)}, f"http://127.0.0.1:{local}")
        try:
            yield forward
        finally:
            forward.stop()

    @contextmanager
    def storage(self) -> Iterator[S3Client]:
        """Forward a local port to the object storage and return a client that has been answered."""
        with self.forward(STORAGE, "service/s3", 8333) as forward:
            client = boto3.client(
                "s3",
                endpoint_url=forward.url,
                region_name="us-east-1",
                aws_access_key_id=ADMIN.access,
                aws_secret_access_key=ADMIN.secret,
                config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 5, "mode": "standard"}),
            )
            deadline = time.monotonic() + QUIET_SECONDS
            while True:
                try:
                    client.list_buckets()
                    break
                except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
                    if time.monotonic() > deadline:
                        raise
                    forward.ensure()
                    time.sleep(0.5)
            yield client

    def secret(self, namespace: str, name: str = "object-storage", keys: Keys = ADMIN) -> Body:
        """Return the Secret that FineTuneJobs of a namespace name."""
        values = {
            "AWS_ACCESS_KEY_ID": keys.access,
            "AWS_SECRET_ACCESS_KEY": keys.secret,
            "AWS_ENDPOINT_URL": SERVICE_URL,
            "AWS_REGION": "us-east-1",
        }
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "stringData": values,
        }

    def install_storage(self) -> None:
        """Deploy SeaweedFS, and make the buckets."""
        manifest = (ROOT / "deploy/local/seaweedfs.yaml").read_text().replace("@IMAGE@", self.images["seaweedfs"])
        self.api.apply(*yaml.safe_load_all(manifest))
        self.wait_available(STORAGE, "seaweedfs")
        with self.storage() as client:
            deadline = time.monotonic() + QUIET_SECONDS
            present = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
            for bucket in BUCKETS:
                while bucket not in present:
                    try:  # the server answers before its volumes are ready to be written to
                        client.create_bucket(Bucket=bucket)
                        client.put_object(Bucket=bucket, Key=".ready", Body=b"")
                        client.delete_object(Bucket=bucket, Key=".ready")
                        present.add(bucket)
                    except botocore.exceptions.ClientError:
                        if time.monotonic() > deadline:
                            raise
                        time.sleep(0.5)

    def install_chart(self, *settings: str) -> None:
        """Install or upgrade the chart, and wait until the operator is ready."""
        self.api.apply(restricted_namespace(SYSTEM))
        chosen = [f"{name}.image={self.images[name]}" for name in PRODUCT_IMAGES]
        values = [part for value in (*chosen, *settings) for part in ("--set", value)]
        self.helm(
            "upgrade", "--install", "trimtab", str(ROOT / "charts/trimtab"), "-n", SYSTEM, "--timeout=30m", *values
        )
        self.wait_available(SYSTEM, "trimtab")

    def install_serving(self, namespace: str, replicas: int) -> None:
        """Deploy the engine with the agent beside it, without waiting for it: it takes a minute to start."""
        text = self.kubectl("kustomize", str(SERVING))
        for body in yaml.safe_load_all(text):
            body["metadata"]["namespace"] = namespace
            if body["kind"] == "Deployment":
                body["spec"]["replicas"] = replicas
                self._set_images(body["spec"]["template"]["spec"])
            self.api.apply(body)

    def _set_images(self, pod: Body) -> None:
        for container in (*pod["initContainers"], *pod["containers"]):
            name = container["image"].rpartition("/")[2].partition(":")[0]
            container["image"] = self.images[name]


def available(deployment: Body | None) -> bool:
    """Tell what `kubectl rollout status` waits for."""
    if deployment is None:
        return False
    wanted, status = deployment["spec"]["replicas"], deployment.get("status", {})
    counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")]
    return status.get("observedGeneration") == deployment["metadata"]["generation"] and counts == [wanted] * 3


def restricted_namespace(name: str) -> Body:
    """Return a namespace that enforces the restricted Pod Security Standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def open_installation(number: int = 1, *, engine: bool = True) -> Installation:
    """Return tools for the cluster of KUBECONFIG, else start the local cluster and load the images into it.

    `engine`: whether the image of vLLM is among them, which is most of the time that a new machine needs.
    """
    names = [*PRODUCT_IMAGES, *(name for name in CLUSTER_IMAGES if engine or name != "vllm-cpu")]
    if os.environ.get("KUBECONFIG"):
        return _external(names)
    cluster = Cluster(number)
    kubeconfig = cluster.up()
    say("images: built once, then taken from the cache")
    images = image_builder.build(["operator"])  # the others share its first layers
    with ThreadPoolExecutor() as lanes:  # packing a layer takes one core, and torch's are most of it
        others = [name for name in names if name not in TORCH_IMAGES]
        torch = [name for name in names if name in TORCH_IMAGES]
        for lane in [lanes.submit(_bring, cluster, chosen) for chosen in (torch, others)]:
            images |= lane.result()
    return Installation(kubeconfig, cluster.program("kubectl"), cluster.program("helm"), images, cluster)


def _bring(cluster: Cluster, names: Sequence[str]) -> dict[str, str]:
    """Build images and load them, each while what was built is still in memory."""
    images: dict[str, str] = {}
    for name in names:
        images |= image_builder.build([name])
        cluster.load(images[name])
    return images


def _external(needed: Sequence[str]) -> Installation:
    names = {name: f"TRIMTAB_{name.upper().replace('-', '_')}_IMAGE" for name in needed}
    missing = [variable for variable in names.values() if not os.environ.get(variable)]
    if missing:
        raise Failed(
            f"KUBECONFIG is set, so images come from a registry that its cluster can reach: build them with "
            f"`make images` or docker, push them, and set {', '.join(missing)}"
        )
    tools = {tool: shutil.which(tool) for tool in ("kubectl", "helm")}
    if absent := [tool for tool, path in tools.items() if path is None]:
        raise Failed(f"KUBECONFIG is set, so {' and '.join(absent)} must be on the PATH")
    images = {name: os.environ[variable] for name, variable in names.items()}
    kubeconfig = Path(os.environ["KUBECONFIG"])
    return Installation(kubeconfig, Path(str(tools["kubectl"])), Path(str(tools["helm"])), images, None)
