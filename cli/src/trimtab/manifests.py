"""Manifests for a beginning: a FineTuneJob, its gate, and the name it is served under. Pure: answers in, YAML out."""

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


@dataclass(frozen=True)
class Answers:
    """What has to be known of a run that everything else has defaults for.

    Attributes:
        base_model, data, output: addresses; `data` is a file or a prefix of rows.
        secret_name: Secret with the keys of the object storage; empty: the pods' own identity.
        gpus: of the train and the evaluate Job.
        serving: label `key=value` of the serving pods; empty: it is not served.
    """

    name: str
    base_model: str
    data: str
    output: str
    secret_name: str = ""
    gpus: int = 1
    serving: str = ""

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
        if self.secret_name and not re.fullmatch(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?", self.secret_name):
            raise Invalid(f"the Secret's name {self.secret_name!r} is none for Kubernetes", "see kubectl get secrets")
        if self.gpus < 0:
            raise Invalid("the number of GPUs is below 0", "give 1, or 0 for a run on processors")
        if self.serving and not re.fullmatch(r"[^\s=,]+=[^\s=,]+", self.serving):
            raise Invalid(f"the label of the serving pods {self.serving!r} is none", "write it as app=vllm")


def manifests(answers: Answers) -> str:
    """Return a FineTuneJob and an Evaluation, and where it is to be served an AdapterRollout, as YAML documents.

    Raises:
        Invalid: an answer is none.
    """
    answers.check()
    bodies = [_finetunejob(answers), _evaluation(answers)]
    if answers.serving:
        bodies.append(_adapterrollout(answers))
    return yaml.safe_dump_all(bodies, sort_keys=False)


def _object(kind: str, answers: Answers, spec: Body) -> Body:
    return {
        "apiVersion": API,
        "kind": kind,
        "metadata": {"name": answers.name, "labels": {"app": answers.name}},
        "spec": spec,
    }


def _finetunejob(answers: Answers) -> Body:
    secret = {"secretName": answers.secret_name} if answers.secret_name else {}
    spec = {
        "baseModel": {"uri": answers.base_model, **secret},
        "dataset": {
            "training": {"uri": answers.data},
            "validation": {"fraction": 0.05},
            "test": {"fraction": 0.05},
            **secret,
        },
        "output": {"uri": answers.output, **secret},
        **_template(answers),
    }
    return _object("FineTuneJob", answers, spec)


def _evaluation(answers: Answers) -> Body:
    """The gate: not worse than the base model on rows that nothing was trained on, beyond what chance explains."""
    spec = {
        "target": {"fineTuneJobName": answers.name},
        "baseline": {"baseModel": True},
        "tasks": [{"name": "heldout", "type": "Perplexity", "dataset": {"split": "Test"}}],
        "thresholds": [{"metric": "heldout/perplexity", "maximumRelativeRegression": 0.05, "confidence": 0.95}],
        **_template(answers),
    }
    return _object("Evaluation", answers, spec)


def _adapterrollout(answers: Answers) -> Body:
    key, _, value = answers.serving.partition("=")
    spec = {
        "adapterName": answers.name,
        "source": {"follow": {"selector": {"matchLabels": {"app": answers.name}}}},
        "serving": {"selector": {"matchLabels": {key: value}}},
    }
    return _object("AdapterRollout", answers, spec)


def _template(answers: Answers) -> Body:
    return {"template": {"resources": {"limits": {"nvidia.com/gpu": answers.gpus}}}} if answers.gpus else {}
