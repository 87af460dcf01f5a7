"""Manifests for a beginning: a FineTuneJob or a FineTuneSweep, its gate, the name it is served under, and an export.

Pure: answers in, YAML out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from .errors import Invalid
from .kinds import kind_named

NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,43}[a-z0-9])?")
API = "trimtab.dev/v1alpha1"
Body = dict[str, Any]
NODES, GPUS, TRIALS, SWEEP_NAME_LENGTH = 64, 16, 200, 32


@dataclass(frozen=True)
class Method:
    """What is learned from, and how that is judged on rows that were held out.

    Attributes:
        rate: learning rate where the default is none for it; `rates` are those that a search draws from.
    """

    rate: float | None
    rates: tuple[float, float]
    task: Body
    threshold: Body


PAIRS = Method(
    0.00005,
    (0.000005, 0.0002),
    {"name": "pairs", "type": "Preference", "dataset": {"split": "Test"}},
    {"metric": "pairs/pairAccuracy", "maximumRegression": 0.02, "confidence": 0.95},
)
METHODS = {
    "SFT": Method(
        None,
        (0.00005, 0.002),
        {"name": "heldout", "type": "Perplexity", "dataset": {"split": "Test"}},
        {"metric": "heldout/perplexity", "maximumRelativeRegression": 0.05, "confidence": 0.95},
    ),
    "DPO": PAIRS,
    "ORPO": PAIRS,
}


@dataclass(frozen=True)
class Answers:
    """What has to be known of a run that everything else has defaults for.

    Attributes:
        base_model, data, output: addresses; `data` is a file or a prefix of rows.
        secret_name: Secret with the keys of the object storage; empty: the pods' own identity.
        hub_secret_name: Secret with the token of a hub, for what is at hf://; empty: it is asked as anybody.
        gpus: of each pod of the train Job; the evaluate Job has one of them.
        nodes: pods that train together.
        method: SFT, DPO or ORPO.
        trials: of a FineTuneSweep over learning rate and rank; 0: one run.
        serving: label `key=value` of the serving pods; empty: it is not served.
        export: address that the whole model is written below; empty: it is not.
    """

    name: str
    base_model: str
    data: str
    output: str
    secret_name: str = ""
    gpus: int = 1
    serving: str = ""
    nodes: int = 1
    method: str = "SFT"
    trials: int = 0
    export: str = ""
    hub_secret_name: str = ""

    def check(self) -> None:
        """Refuse what no cluster would take.

        Raises:
            Invalid: with the answer that is wrong, and how it would be right.
        """
        if not NAME.fullmatch(self.name):
            raise Invalid(
                f"the name {self.name!r} is none for Kubernetes",
                "take at most 45 small letters, digits and dashes, beginning and ending with a letter or digit",
            )
        patterns = kind_named("FineTuneJob").addresses
        for what, path, uri, form in (
            (
                "base model",
                "spec.baseModel.uri",
                self.base_model,
                "s3://bucket/path or hf://organisation/name@revision",
            ),
            (
                "data",
                "spec.dataset.training.uri",
                self.data,
                "s3://bucket/path or hf://datasets/organisation/name@revision",
            ),
            ("output", "spec.output.uri", self.output, "s3://bucket/path"),
        ):
            if not re.fullmatch(patterns[path], uri):
                raise Invalid(f"the {what} {uri!r} is no address that a FineTuneJob takes", f"write it as {form}")
        if self.export and not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?", self.export):
            raise Invalid(f"the export's address {self.export!r} is none", "write it as s3://bucket/path")
        for secret in (self.secret_name, self.hub_secret_name):
            if secret and not re.fullmatch(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?", secret):
                raise Invalid(f"the Secret's name {secret!r} is none for Kubernetes", "see kubectl get secrets")
        self._check_size()
        if self.serving and not re.fullmatch(r"[^\s=,]+=[^\s=,]+", self.serving):
            raise Invalid(f"the label of the serving pods {self.serving!r} is none", "write it as app=vllm")

    def _check_size(self) -> None:
        if not 0 <= self.gpus <= GPUS:
            raise Invalid(f"the number of GPUs is not 0 to {GPUS}", "give 1, or 0 for a run on processors")
        if not 1 <= self.nodes <= NODES:
            raise Invalid(f"the number of nodes is not 1 to {NODES}", "give 1, or how many pods train together")
        if self.method not in METHODS:
            why = "no Evaluation reads the rows that KTO holds out; " if self.method == "KTO" else ""
            raise Invalid(
                f"the form knows no method {self.method!r}",
                f"{why}take one of {', '.join(METHODS)}, or change the manifest by hand",
            )
        if self.trials and not 2 <= self.trials <= TRIALS:
            raise Invalid(f"the number of trials is not 2 to {TRIALS}", "give 0 for one run that is no search")
        if self.trials and len(self.name) > SWEEP_NAME_LENGTH:
            raise Invalid(
                f"the name of a search has {len(self.name)} characters", f"take at most {SWEEP_NAME_LENGTH} of them"
            )


def manifests(answers: Answers) -> str:
    """Return the manifests of the answers as YAML documents.

    A FineTuneJob and the Evaluation that judges it, or a FineTuneSweep whose final does; where it is to be served an
    AdapterRollout, and where the whole model is wanted an AdapterExport.

    Raises:
        Invalid: an answer is none.
    """
    answers.check()
    bodies = [_finetunesweep(answers)] if answers.trials else [_finetunejob(answers), _evaluation(answers)]
    if answers.serving:
        bodies.append(_adapterrollout(answers))
    if answers.export:
        bodies.append(_adapterexport(answers))
    return yaml.dump_all(bodies, Dumper=_Plain, sort_keys=False)


class _Plain(yaml.SafeDumper):
    """Writes what stands in two places twice: people read it, and no parser of ours takes an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _object(kind: str, answers: Answers, spec: Body) -> Body:
    return {
        "apiVersion": API,
        "kind": kind,
        "metadata": {"name": answers.name, "labels": {"app": answers.name}},
        "spec": spec,
    }


def _finetunejob(answers: Answers) -> Body:
    return _object("FineTuneJob", answers, _run(answers))


def _run(answers: Answers) -> Body:
    method = METHODS[answers.method]
    learned = {"training": {"method": answers.method, "learningRate": method.rate}} if method.rate else {}
    return {
        "baseModel": {"uri": answers.base_model, **_secret(answers, answers.base_model)},
        "dataset": {
            "training": {"uri": answers.data},
            "validation": {"fraction": 0.05},
            "test": {"fraction": 0.05},
            **_secret(answers, answers.data),
        },
        "output": {"uri": answers.output, **_secret(answers, answers.output)},
        **learned,
        **({"nodes": answers.nodes} if answers.nodes > 1 else {}),
        **_template(answers.gpus),
    }


def _evaluation(answers: Answers) -> Body:
    """The gate: not worse than the base model on rows that nothing was trained on, beyond what chance explains."""
    method = METHODS[answers.method]
    spec = {
        "target": {"fineTuneJobName": answers.name},
        "baseline": {"baseModel": True},
        "tasks": [method.task],
        "thresholds": [method.threshold],
        **_template(min(answers.gpus, 1)),  # an Evaluation uses one
    }
    return _object("Evaluation", answers, spec)


def _finetunesweep(answers: Answers) -> Body:
    """A search whose final is the gate: the winner's Evaluation has the sweep's name, and the labels of the final."""
    method = METHODS[answers.method]
    low, high = method.rates
    run = _run(answers)
    run.get("training", {}).pop("learningRate", None)
    spec = {
        "parameters": [
            {"name": "training.learningRate", "range": {"minimum": low, "maximum": high, "scale": "Log"}},
            {"name": "lora.rank", "values": [8, 16, 32]},
        ],
        "maxTrials": answers.trials,
        "parallelTrials": 2,
        "final": {
            "metadata": {"labels": {"app": answers.name}},
            "topTrials": min(3, answers.trials),
            "evaluation": {
                "tasks": [method.task],
                "metric": method.threshold["metric"],
                "baseline": {"baseModel": True},
                "thresholds": [method.threshold],
            },
        },
        "template": {"metadata": {"labels": {"app": answers.name}}, "spec": run},
    }
    return _object("FineTuneSweep", answers, spec)


def _adapterexport(answers: Answers) -> Body:
    spec = {
        "source": {"evaluationName": answers.name},
        "destination": {"uri": answers.export, **_secret(answers, answers.export)},
    }
    return _object("AdapterExport", answers, spec)


def _secret(answers: Answers, uri: str) -> Body:
    """Return the Secret for what is at an address: keys of the object storage are none for a hub."""
    name = answers.hub_secret_name if uri.startswith("hf://") else answers.secret_name
    return {"secretName": name} if name else {}


def _adapterrollout(answers: Answers) -> Body:
    key, _, value = answers.serving.partition("=")
    spec = {
        "adapterName": answers.name,
        "source": {"follow": {"selector": {"matchLabels": {"app": answers.name}}}},
        "serving": {"selector": {"matchLabels": {key: value}}},
    }
    return _object("AdapterRollout", answers, spec)


def _template(gpus: int) -> Body:
    return {"template": {"resources": {"limits": {"nvidia.com/gpu": gpus}}}} if gpus else {}
