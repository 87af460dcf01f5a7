"""`spec.template`: the part of a pod that users choose, within what restricted Pod Security allows.

Everything else of the pod belongs to Trimtab. The names are those of core/v1, and `to_json()` of a piece is that piece
of a pod spec. List items have no static defaults: a GitOps tool that compares lists as a whole would never be in sync.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field
from trimtab_trainer.contract import Model
from trimtab_trainer.contract.model import Rule, rules

from .names import DOMAIN_KEY, NAME, OBJECT_NAME
from .resources import QUANTITY, ProcessorResources, ResourceRequirements, SingleResourceRequirements
from .scheduling import ATOMIC, LABEL_VALUE, Affinity, Toleration, TopologySpreadConstraint, keyed_by

RESERVED_PATHS = ("/run/trimtab", "/work", "/dev", "/tmp")
"""Where Trimtab's own volumes are mounted."""

RESERVED_VOLUME_PREFIX = "trimtab-"
"""Trimtab's own volumes have names that begin so; a user's volumes must not."""

RESERVED_ENV_PREFIX = "TRIMTAB_"

IMAGE = Annotated[str, Field(max_length=512, pattern=r"^[^\s]*$")]
DATA_KEY = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
FILE_MODE = Annotated[int, Field(ge=0, le=0o777)]


def _exactly_one(*names: str) -> Rule:
    """Return the rule that one of these optional fields is set, and no other."""
    fields = ", ".join(f"has(self.{name})" for name in names)
    return f"[{fields}].filter(x, x).size() == 1", f"exactly one of {', '.join(names[:-1])} and {names[-1]} must be set"


_SHORT_KEYS: Rule = ("self.all(k, k.size() <= 317)", "a key must have at most 317 characters")


_KEYS: tuple[Rule, ...] = (
    _SHORT_KEYS,
    (
        f"self.all(k, k.matches('^({DOMAIN_KEY}|[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?)$'))",
        "a key must be a name, or prefix/name",
    ),
)
"""Of what the API server takes as a label or annotation."""

_OPEN_DOMAINS = ("app.kubernetes.io", "cluster-autoscaler.kubernetes.io")
_SET_BY_US = ("app.kubernetes.io/managed-by", "job-name", "controller-uid")


def _free_keys() -> list[Rule]:
    """Return the rules that keep a map of labels or annotations off what Kubernetes and Trimtab set or take as orders.

    The domains of sub-projects, such as kueue.x-k8s.io, are not theirs.
    """
    opened = "|".join(each.replace(".", "[.]") for each in _OPEN_DOMAINS)
    closed = "([^/]*[.])?(trimtab[.]dev|kubernetes[.]io|k8s[.]io)"
    return [
        *_KEYS,
        (
            f"self.all(k, !(k in {list(_SET_BY_US)}) && (k.matches('^({opened})/') || !k.matches('^{closed}/')))",
            "keys of trimtab.dev, kubernetes.io and k8s.io are set by Trimtab and Kubernetes, as are "
            f"{' and '.join(_SET_BY_US[1:])}; of {' and '.join(_OPEN_DOMAINS)} all but {_SET_BY_US[0]} are free",
        ),
    ]


class LocalObjectReference(Model):
    """An object in the same namespace."""

    name: OBJECT_NAME = Field(description="name of the object.")


class KeyToPath(Model):
    """A key of a ConfigMap or Secret, and the file it becomes."""

    key: DATA_KEY = Field(description="key to project.")
    path: Annotated[str, Field(min_length=1, max_length=512)] = Field(description="path below the mount, relative.")
    mode: FILE_MODE | None = Field(default=None, description="mode of the file, 0 to 511 (octal 777).")


class PersistentVolumeClaimSource(Model):
    """A claim in the same namespace."""

    claim_name: OBJECT_NAME = Field(description="claimName of the PersistentVolumeClaim.")
    read_only: bool | None = Field(default=None, description="readOnly mounts it without writing; absent: false.")


class ConfigMapSource(Model):
    """A ConfigMap as files."""

    name: OBJECT_NAME = Field(description="name of the ConfigMap.")
    items: list[KeyToPath] | None = Field(
        default=None, max_length=64, json_schema_extra=ATOMIC, description="items to project; absent: all keys."
    )
    default_mode: FILE_MODE | None = Field(default=None, description="defaultMode of the files; absent: 420 (0644).")
    optional: bool | None = Field(default=None, description="optional: the pod starts without it; absent: false.")


class SecretSource(Model):
    """A Secret as files."""

    secret_name: OBJECT_NAME = Field(description="secretName of the Secret.")
    items: list[KeyToPath] | None = Field(
        default=None, max_length=64, json_schema_extra=ATOMIC, description="items to project; absent: all keys."
    )
    default_mode: FILE_MODE | None = Field(default=None, description="defaultMode of the files; absent: 420 (0644).")
    optional: bool | None = Field(default=None, description="optional: the pod starts without it; absent: false.")


class EmptyDirSource(Model):
    """A directory that lives as long as the pod."""

    medium: Literal["", "Memory"] | None = Field(default=None, description="medium: Memory, or the node's disk.")
    size_limit: QUANTITY | None = Field(default=None, description="sizeLimit beyond which the pod is evicted.")


class ImageSource(Model):
    """An OCI image or artifact, mounted read-only."""

    reference: Annotated[str, Field(min_length=1, max_length=512)] = Field(description="reference of the image.")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        default=None, description="pullPolicy; absent: Always for the tag latest, else IfNotPresent."
    )


class Volume(Model):
    """A volume of a kind that restricted Pod Security admits."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            _exactly_one("persistentVolumeClaim", "configMap", "secret", "emptyDir", "image"),
            (
                f"!self.name.startsWith('{RESERVED_VOLUME_PREFIX}')",
                f"names that begin with {RESERVED_VOLUME_PREFIX} belong to Trimtab's own volumes",
            ),
        )
    )

    name: NAME = Field(description="name that volumeMounts refer to.")
    persistent_volume_claim: PersistentVolumeClaimSource | None = Field(
        default=None, description="persistentVolumeClaim to mount."
    )
    config_map: ConfigMapSource | None = Field(default=None, description="configMap to mount.")
    secret: SecretSource | None = Field(default=None, description="secret to mount.")
    empty_dir: EmptyDirSource | None = Field(default=None, description="emptyDir to mount.")
    image: ImageSource | None = Field(default=None, description="image to mount.")


class VolumeMount(Model):
    """Where a volume appears in the container."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                f"!{list(RESERVED_PATHS)}.exists(p, self.mountPath == p || self.mountPath.startsWith(p + '/'))",
                f"mountPath must not be in {', '.join(RESERVED_PATHS)}: Trimtab's own volumes are there",
            ),
            (
                "!self.mountPath.matches('/[.]{1,2}(/|$)')",
                "mountPath must not contain the elements '.' and '..'",
            ),
        )
    )

    name: NAME = Field(description="name of one of the volumes.")
    mount_path: Annotated[str, Field(min_length=2, max_length=512, pattern=r"^(/[^/:]+)+/?$")] = Field(
        description="mountPath in the container, absolute."
    )
    read_only: bool | None = Field(default=None, description="readOnly; absent: false.")
    sub_path: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^/]")] | None = Field(
        default=None, description="subPath of the volume to mount, relative; absent: its root."
    )


class SecretKeySelector(Model):
    """A key of a Secret."""

    name: OBJECT_NAME = Field(description="name of the Secret.")
    key: DATA_KEY = Field(description="key in the Secret.")
    optional: bool | None = Field(default=None, description="optional: the pod starts without it; absent: false.")


class ConfigMapKeySelector(Model):
    """A key of a ConfigMap."""

    name: OBJECT_NAME = Field(description="name of the ConfigMap.")
    key: DATA_KEY = Field(description="key in the ConfigMap.")
    optional: bool | None = Field(default=None, description="optional: the pod starts without it; absent: false.")


class ObjectFieldSelector(Model):
    """A field of the pod."""

    field_path: Annotated[str, Field(min_length=1, max_length=512)] = Field(
        description="fieldPath of the pod, for example spec.nodeName."
    )


class EnvVarSource(Model):
    """Where the value of a variable comes from."""

    model_config = ConfigDict(json_schema_extra=rules(_exactly_one("secretKeyRef", "configMapKeyRef", "fieldRef")))

    secret_key_ref: SecretKeySelector | None = Field(default=None, description="secretKeyRef to a key of a Secret.")
    config_map_key_ref: ConfigMapKeySelector | None = Field(
        default=None, description="configMapKeyRef to a key of a ConfigMap."
    )
    field_ref: ObjectFieldSelector | None = Field(default=None, description="fieldRef to a field of the pod.")


class EnvVar(Model):
    """One environment variable."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("!(has(self.value) && has(self.valueFrom))", "set value or valueFrom, not both"),
            (
                f"!self.name.startsWith('{RESERVED_ENV_PREFIX}')",
                f"names that begin with {RESERVED_ENV_PREFIX} belong to Trimtab",
            ),
        )
    )

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")] = Field(
        description="name of the variable."
    )
    value: Annotated[str, Field(max_length=4096)] | None = Field(
        default=None, description="value of the variable; absent, without valueFrom: empty."
    )
    value_from: EnvVarSource | None = Field(default=None, description="valueFrom another object.")


class ResourceClaim(Model):
    """Devices by dynamic resource allocation. A pod gets the claims that its container's resources name, no others."""

    model_config = ConfigDict(json_schema_extra=rules(_exactly_one("resourceClaimName", "resourceClaimTemplateName")))

    name: NAME = Field(description="name that the claims of resources refer to.")
    resource_claim_name: OBJECT_NAME | None = Field(
        default=None, description="resourceClaimName of a ResourceClaim that all attempts share."
    )
    resource_claim_template_name: OBJECT_NAME | None = Field(
        default=None, description="resourceClaimTemplateName of a template; every pod gets a claim of its own."
    )
    accelerators: int | None = Field(
        default=None,
        ge=0,
        le=1024,
        description="accelerators that the claim stands for in acceleratorSeconds, which a pod does not tell: 0 for "
        "network cards and the like; absent: 1.",
    )


_UNKNOWN_CLAIM = "!has(self.resourceClaims) || !self.resourceClaims.exists(r, r.name == c.name)"


def _claims_of(resources: str, used: str) -> str:
    """Return the condition on the claims of a container; there may be none."""
    return f"has(self.{resources}) && has(self.{resources}.claims) && self.{resources}.claims.exists(c, {used})"


_MOUNTED: Rule = (
    "!has(self.volumeMounts) || self.volumeMounts.all(m, has(self.volumes) && "
    "self.volumes.exists(v, v.name == m.name))",
    "every volumeMounts name must be the name of one of the volumes",
)


class WorkTemplate(Model):
    """What users choose of every kind of work pod."""

    image: IMAGE = Field(default="", description="image of the train Job; empty: the operator's setting.")
    image_pull_secrets: list[LocalObjectReference] = Field(
        default=[], max_length=16, json_schema_extra=keyed_by("name"), description="imagePullSecrets of the pods."
    )
    termination_grace_period_seconds: int = Field(
        default=120, ge=1, le=3600, description="terminationGracePeriodSeconds: the time a checkpoint has."
    )
    node_selector: dict[str, LABEL_VALUE] = Field(
        default={},
        max_length=32,
        json_schema_extra=rules(*_KEYS),
        description="nodeSelector: labels the node must have.",
    )
    affinity: Affinity | None = Field(default=None, description="affinity to nodes and other pods.")
    tolerations: list[Toleration] = Field(
        default=[], max_length=32, json_schema_extra=ATOMIC, description="tolerations of taints."
    )
    topology_spread_constraints: list[TopologySpreadConstraint] = Field(
        default=[],
        max_length=16,
        json_schema_extra=keyed_by("topologyKey", "whenUnsatisfiable"),
        description="topologySpreadConstraints over places.",
    )
    priority_class_name: OBJECT_NAME | None = Field(default=None, description="priorityClassName of the pods.")
    scheduler_name: OBJECT_NAME | None = Field(default=None, description="schedulerName; absent: the cluster's.")
    runtime_class_name: OBJECT_NAME | None = Field(default=None, description="runtimeClassName of the pods.")
    service_account_name: OBJECT_NAME | None = Field(
        default=None, description="serviceAccountName for workload identity; its token is never mounted."
    )
    volumes: list[Volume] = Field(
        default=[],
        max_length=32,
        json_schema_extra=keyed_by("name"),
        description="volumes beside Trimtab's own: claims, ConfigMaps, Secrets, emptyDirs and images.",
    )
    volume_mounts: list[VolumeMount] = Field(
        default=[], max_length=32, json_schema_extra=keyed_by("mountPath"), description="volumeMounts of the volumes."
    )
    labels: dict[str, LABEL_VALUE] = Field(
        default={},
        max_length=32,
        json_schema_extra=rules(*_free_keys()),
        description="labels added to the Jobs and their pods.",
    )
    annotations: dict[str, Annotated[str, Field(max_length=4096)]] = Field(
        default={},
        max_length=32,
        json_schema_extra=rules(*_free_keys()),
        description="annotations added to the Jobs and their pods.",
    )
    env: list[EnvVar] = Field(
        default=[], max_length=64, json_schema_extra=keyed_by("name"), description="env: variables of the containers."
    )


class PodTemplate(WorkTemplate):
    """The pods of the job, as far as users choose them."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            _MOUNTED,
            *(
                (
                    f"!({_claims_of(resources, _UNKNOWN_CLAIM)})",
                    f"every name in the claims of {resources} must be the name of one of the resourceClaims",
                )
                for resources in ("resources", "prepareResources")
            ),
            (
                "!has(self.resourceClaims) || self.resourceClaims.all(r, "
                f"({_claims_of('resources', 'c.name == r.name')}) || "
                f"({_claims_of('prepareResources', 'c.name == r.name')}))",
                "every one of the resourceClaims must be in the claims of resources or prepareResources: no pod gets "
                "it otherwise",
            ),
        )
    )

    prepare_image: IMAGE = Field(
        default="", description="prepareImage of the CPU-only prepare Job; empty: the operator's setting."
    )
    resources: ResourceRequirements | None = Field(
        default=None,
        description="resources of the train Job's container; what they lack is taken from the operator's setting.",
    )
    prepare_resources: SingleResourceRequirements | None = Field(
        default=None, description="prepareResources of the prepare Job's container, which needs no accelerator."
    )
    resource_claims: list[ResourceClaim] = Field(
        default=[],
        max_length=16,
        json_schema_extra=keyed_by("name"),
        description="resourceClaims: devices by dynamic resource allocation.",
    )


class ProcessorTemplate(WorkTemplate):
    """The pods of work in one Job that computes on processors, as far as users choose them."""

    model_config = ConfigDict(json_schema_extra=rules(_MOUNTED))

    prepare_image: ClassVar[str] = ""
    prepare_resources: ClassVar[None] = None
    resource_claims: ClassVar[tuple[ResourceClaim, ...]] = ()

    image: IMAGE = Field(default="", description="image of the Job; empty: the operator's setting for training.")
    resources: ProcessorResources | None = Field(
        default=None,
        description="resources of the container; what they lack is taken from the operator's setting for preparing.",
    )


AnyTemplate = PodTemplate | ProcessorTemplate
