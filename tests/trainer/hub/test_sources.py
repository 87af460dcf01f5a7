"""How sources on a hub are written, in the schema and in what is made of them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from trimtab_trainer.config import at_the_mirror
from trimtab_trainer.contract import (
    EvaluationConfig,
    HubSource,
    Mirrored,
    MirroredSource,
    Reason,
    RunConfig,
    Stage,
    TerminationMessage,
    hub_sources,
)
from trimtab_trainer.contract.evaluation import EVALUATION_VERSION
from trimtab_trainer.contract.outcome import TERMINATION_MESSAGE_BYTES
from trimtab_trainer.errors import SettingsInvalid

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODELS = {
    "hf://org/name@main": ("org/name", "main"),
    f"hf://HuggingFaceTB/SmolLM2-135M-Instruct@{COMMIT}": ("HuggingFaceTB/SmolLM2-135M-Instruct", COMMIT),
    "hf://org/na.me_1@v1.0": ("org/na.me_1", "v1.0"),
    "hf://org/name@refs/pr/7": ("org/name", "refs/pr/7"),
    "hf://org/name@team/branch": ("org/name", "team/branch"),
}
NO_MODELS = [
    "hf://org/name",
    "hf://name@main",
    "hf://org/name@",
    "hf://org/name@main/",
    "hf://org/name@../../x",
    "hf://org/name@main?token=x",
    "hf://org/../name@main",
    "hf://datasets/org/name@main",
    "hf://user:token@hub/org/name@main",
    "https://hub/org/name",
]
DATA = {
    "hf://datasets/org/name@main": ("org/name", "main", ""),
    "hf://datasets/org/name@main/": ("org/name", "main", ""),
    "hf://datasets/org/name@v1/data/train/": ("org/name", "v1", "data/train/"),
    "hf://datasets/org/name@v1/data/a b.jsonl": ("org/name", "v1", "data/a b.jsonl"),
    "hf://datasets/org/name@refs/convert/parquet/default/train/": (
        "org/name",
        "refs/convert/parquet",
        "default/train/",
    ),
    "hf://datasets/org/name@team%2Fbranch/x.parquet": ("org/name", "team/branch", "x.parquet"),
}
NO_DATA = ["hf://org/name@main", "hf://datasets/org/name", "hf://datasets/org/name/data", "hf://datasets/name@main"]


def run(**changes: Any) -> dict[str, Any]:
    document = {
        "baseModel": {"uri": "s3://models/tiny"},
        "dataset": {"training": {"uri": "s3://datasets/x/"}},
        "output": {"uri": "s3://adapters/demo/", "credentials": {"directory": "/keys/output"}},
    }
    return {**document, **changes}


@pytest.mark.parametrize("uri", MODELS)
def test_a_model_is_a_repository_at_a_revision(uri: str) -> None:
    config = RunConfig.model_validate(run(baseModel={"uri": uri}))
    source = HubSource.parse(config.base_model.uri)
    assert source is not None
    assert (source.kind, source.repository, source.revision) == ("model", *MODELS[uri])
    assert source.commit == (COMMIT if COMMIT in uri else None)


@pytest.mark.parametrize("uri", NO_MODELS)
def test_everything_else_is_none(uri: str) -> None:
    with pytest.raises(ValidationError):
        RunConfig.model_validate(run(baseModel={"uri": uri}))


@pytest.mark.parametrize("uri", DATA)
def test_data_may_be_a_part_of_a_repository(uri: str) -> None:
    config = RunConfig.model_validate(run(dataset={"training": {"uri": uri}}))
    source = HubSource.parse(config.dataset.training.uri)
    assert source is not None
    assert (source.kind, source.repository, source.revision, source.path) == ("dataset", *DATA[uri])


@pytest.mark.parametrize("uri", NO_DATA)
def test_other_data_are_none(uri: str) -> None:
    with pytest.raises(ValidationError):
        RunConfig.model_validate(run(dataset={"training": {"uri": uri}}))


@pytest.mark.parametrize("side", ["validation", "test"])
def test_the_data_of_one_run_come_from_one_place(side: str) -> None:
    hub = "hf://datasets/org/name@main/"
    for one, other in (("s3://rows/y/", hub), (hub, "file:///x/")):
        with pytest.raises(ValidationError, match="either all data of a dataset come from a hub"):
            RunConfig.model_validate(run(dataset={"training": {"uri": one}, side: {"uri": other}}))
    for uri in (hub, "s3://rows/y/"):
        RunConfig.model_validate(run(dataset={"training": {"uri": uri}, side: {"uri": uri}}))


def test_a_configuration_is_read_from_the_mirror_with_the_keys_of_the_output() -> None:
    model, rows = "hf://org/base@main", "hf://datasets/org/rows@main/train.jsonl"
    config = RunConfig.model_validate(
        run(
            baseModel={"uri": model, "credentials": {"directory": "/keys/hub"}},
            dataset={"training": {"uri": rows}, "credentials": {"directory": "/keys/hub"}},
        )
    )
    assert list(hub_sources(config)) == [model, rows]
    with pytest.raises(SettingsInvalid, match="trimtab-trainer mirror"):
        at_the_mirror(config, None)
    a, b = (MirroredSource(uri=uri, commit=COMMIT, digest="sha256:" + c * 64) for uri, c in ((model, "a"), (rows, "b")))
    with pytest.raises(SettingsInvalid, match="hf://datasets/org/rows"):
        at_the_mirror(config, Mirrored(sources=(a,)))
    there = at_the_mirror(config, Mirrored(sources=(a, b)))
    assert there.base_model.uri == "s3://adapters/demo/models/" + "a" * 64
    assert there.dataset.training.uri == f"s3://adapters/demo/datasets/{'b' * 64}/files/train.jsonl"
    assert there.base_model.credentials == there.dataset.credentials == config.output.credentials
    assert at_the_mirror(there, None) == there


def test_rows_in_storage_keep_their_keys() -> None:
    model = "hf://org/base@main"
    keys = {"directory": "/keys/data"}
    config = RunConfig.model_validate(
        run(baseModel={"uri": model}, dataset={"training": {"uri": "s3://rows/y/"}, "credentials": keys})
    )
    found = MirroredSource(uri=model, commit=COMMIT, digest="sha256:" + "a" * 64)
    there = at_the_mirror(config, Mirrored(sources=(found,)))
    assert there.dataset == config.dataset


def evaluated(*uris: str, base: str = "s3://models/tiny", kind: str = "Perplexity", **more: Any) -> EvaluationConfig:
    tasks = [{"name": f"t{n}", "type": kind, "dataset": {"uri": uri}, **more} for n, uri in enumerate(uris)]
    keys = {"directory": "/keys/rows"}
    document = {"baseModel": {"uri": base}, "tasks": tasks, "datasetCredentials": keys}
    output = {"uri": "file:///out", "credentials": {"directory": "/keys/output"}}
    return EvaluationConfig.model_validate({"version": EVALUATION_VERSION, "output": output, **document})


def found(uri: str, digit: str) -> MirroredSource:
    return MirroredSource(uri=uri, commit=COMMIT, digest="sha256:" + digit * 64)


def test_an_evaluation_may_name_base_model_and_rows_on_a_hub() -> None:
    model, rows = "hf://org/base@main", "hf://datasets/org/rows@main/test.jsonl"
    config = evaluated(rows, rows, base=model)
    assert list(hub_sources(config)) == [model, rows], "each once"
    assert hub_sources(config)[rows] == config.dataset_credentials
    with pytest.raises(SettingsInvalid, match="trimtab-trainer mirror"):
        at_the_mirror(config, Mirrored(sources=(found(model, "a"),)))
    there = at_the_mirror(config, Mirrored(sources=(found(model, "a"), found(rows, "b"))))
    assert there.base_model.uri == "file:///out/models/" + "a" * 64
    assert [each.dataset.uri for each in there.tasks] == [f"file:///out/datasets/{'b' * 64}/files/test.jsonl"] * 2
    assert there.dataset_credentials == config.output.credentials


def test_rows_of_an_evaluation_in_storage_keep_their_keys_beside_a_base_model_on_a_hub() -> None:
    model = "hf://org/base@main"
    config = evaluated("s3://rows/y/", base=model)
    there = at_the_mirror(config, Mirrored(sources=(found(model, "a"),)))
    assert (there.tasks, there.dataset_credentials) == (config.tasks, config.dataset_credentials)


def test_rows_of_an_evaluation_come_from_one_place_and_from_few_repositories() -> None:
    hub = [f"hf://datasets/org/rows@v{n}" for n in range(4)]
    with pytest.raises(ValidationError, match=r"is on a hub .* or of none"):
        evaluated(hub[0], "s3://rows/y/")
    with pytest.raises(ValidationError, match=r"4 sources on a hub .* at most 3"):
        evaluated(*hub)
    evaluated(*hub[:3], *hub[:3])
    with pytest.raises(ValidationError, match="the YAML files of a harnessTask are not read from a hub"):
        evaluated(hub[0], kind="Harness", harnessTask="arc")


def test_the_longest_sources_fit_into_the_last_words() -> None:
    path = "/" + "p" * 256
    uris = [f"hf://{'o' * 96}/{'n' * 96}@{'r' * 64}/{'r' * 64}/{'r' * 64}"]
    uris += [f"hf://datasets/{'o' * 96}/{'n' * 96}@{c}{'r' * 63}%2F{'r' * 64}%2F{'r' * 64}{path}" for c in "abc"]
    RunConfig.model_validate(run(baseModel={"uri": uris[0]}, dataset={"training": {"uri": uris[1]}}))
    sources = tuple(
        MirroredSource(uri=uri, commit=COMMIT, digest="sha256:" + "a" * 64, license="l" * 64) for uri in uris
    )
    words = TerminationMessage(
        stage=Stage.MIRROR,
        run_uid="1b4e28ba-0000-0000-0000-000000000000",
        attempt=10,
        reason=Reason.COMPLETED,
        mirrored=Mirrored(sources=sources),
    )
    assert len(words.encode().encode()) <= TERMINATION_MESSAGE_BYTES
    assert TerminationMessage.decode(words.encode()) == words
