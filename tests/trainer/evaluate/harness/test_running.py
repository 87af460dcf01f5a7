"""Harness tasks on the tiny model: what the library itself would say, without a network and without running code."""

from __future__ import annotations

import json
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer
from trimtab_trainer.contract import EvaluationTask, Reason, Threshold
from trimtab_trainer.errors import Interrupted, OutOfMemory, SettingsInvalid
from trimtab_trainer.evaluate.comparison import compare
from trimtab_trainer.evaluate.harness import running as harness
from trimtab_trainer.evaluate.harness.offline import NetworkRefused, offline
from trimtab_trainer.evaluate.harness.running import run_task
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.training.network.model import LanguageModel, frozen_hash

from tests.trainer.evaluate.harness_task import CHOICE, GENERATION, LIKELIHOOD, QUESTIONS, write_task
from tests.trainer.evaluate.models import KINDS, adapted_model, bare_model
from tests.trainer.evaluate.scored import about
from tests.trainer.evaluate.scored import task as harness_task


@pytest.fixture(scope="module")
def model(tiny: Path) -> LanguageModel:
    return bare_model(tiny)


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny)


def asked(model: LanguageModel, tokenizer: Any, folder: Path, **settings: Any) -> harness.Answers:
    """Run the folder's task."""
    how = {key: settings.pop(key) for key in ("batch_size", "stop") if key in settings}
    dataset = {"uri": "file:///tasks/", "limit": settings.pop("limit", None)}
    task = EvaluationTask.model_validate(
        {"name": "it", "type": "Harness", "harnessTask": "numbers", "dataset": dataset, **settings}
    )
    return run_task(
        model,
        tokenizer,
        task,
        folder,
        seed=7,
        batch_size=how.get("batch_size"),
        stop=how.get("stop") or Interruption(),
    )


def own_run(model: LanguageModel, tokenizer: Any, config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run the same task with the library's own entry point; return its results and its samples."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    files = {"test": str(folder / "test.jsonl")}
    given = {**config, "dataset_kwargs": {"data_files": files, "cache_dir": str(folder / "cache")}}
    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=model.causal, tokenizer=tokenizer, batch_size=2), tasks=[given], bootstrap_iters=0
    )
    assert found is not None
    return {"results": found["results"]["numbers"], "samples": found["samples"]["numbers"]}


@pytest.mark.parametrize("config", [CHOICE, LIKELIHOOD, GENERATION], ids=lambda config: config["output_type"])
def test_means_over_rows_are_what_the_harness_says(
    config: dict[str, Any], model: LanguageModel, tokenizer: Any, tmp_path: Path
) -> None:
    rows = [{**row, "right": index % 3, "a": "1" if index % 2 else " fox"} for index, row in enumerate(QUESTIONS)]
    folder = write_task(tmp_path, config, rows=rows)
    found, scores, lower = asked(model, tokenizer, folder)
    results = own_run(model, tokenizer, config, folder)["results"]
    assert [row.place for row in found] == [f"doc {index}" for index in range(6)]
    assert [row.cluster for row in found] == [row.number for row in found] == [score.number for score in scores]
    assert list(lower) == [entry["metric"] for entry in config["metric_list"]]
    for metric, less in lower.items():
        values = [score.figures[metric] for score in scores if score.figures]
        assert len(values) == 6
        assert sum(values) / 6 == pytest.approx(results[f"{metric},none"], abs=1e-12)
        assert less is False


def test_rows_say_what_was_asked_and_answered(model: LanguageModel, tokenizer: Any, tmp_path: Path) -> None:
    rows, scores, _ = asked(model, tokenizer, write_task(tmp_path / "choice", CHOICE))
    assert (rows[2].prompt, rows[2].reference) == ("Which number follows 2?", "3")
    assert scores[2].text is None
    rows, scores, _ = asked(model, tokenizer, write_task(tmp_path / "generation", GENERATION))
    assert (rows[2].prompt, rows[2].reference) == ("Which number follows 2?", "3")
    assert isinstance(scores[2].text, str)


def test_every_filter_has_its_figures(model: LanguageModel, tokenizer: Any, tmp_path: Path) -> None:
    filters = [
        {"name": "strict-match", "filter": [{"function": "take_first"}]},
        {"name": "any", "filter": [{"function": "regex", "regex_pattern": "(.*)"}, {"function": "take_first"}]},
    ]
    folder = write_task(tmp_path, {**GENERATION, "filter_list": filters})
    _, scores, lower = asked(model, tokenizer, folder)
    assert list(lower) == ["exact_match_strict_match", "exact_match_any"]
    assert all(set(score.figures or {}) == set(lower) for score in scores)


def grouped(count: int) -> list[dict[str, Any]]:
    """Return rows of three groups, the model's luck with each another; the last group is small."""
    return [
        {
            "q": f"Which number follows {n}?",
            "options": [str(n + 1), "a fox", "the dog jumps"],
            "right": n % 3 if n % 2 else 0,
            "a": " fox" if n % 3 else "1",
            "kind": "rare" if n < 4 else "odd" if n % 2 else "even",
        }
        for n in range(count)
    ]


FILTERED = {
    **GENERATION,
    "filter_list": [
        {"name": "strict", "filter": [{"function": "take_first"}]},
        {"name": "first-word", "filter": [{"function": "regex", "regex_pattern": r"(\w)"}, {"function": "take_first"}]},
    ],
}


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        (CHOICE, {"acc": ("acc", "none"), "acc_norm": ("acc_norm", "none")}),
        (
            FILTERED,
            {
                "exact_match_strict": ("exact_match", "strict"),
                "exact_match_first_word": ("exact_match", "first-word"),
            },
        ),
    ],
    ids=["multiple_choice", "two filters"],
)
def test_figures_by_group_are_the_means_of_what_the_harness_logs(
    config: dict[str, Any], keys: dict[str, tuple[str, str]], model: LanguageModel, tokenizer: Any, tmp_path: Path
) -> None:
    documents = grouped(40)
    if config is FILTERED:
        _, answered, _ = asked(model, tokenizer, write_task(tmp_path / "first", config, rows=documents))
        for document, score in list(zip(documents, answered, strict=True))[::3]:
            text = str(score.text)
            document["a"] = text if document["kind"] == "odd" else text.strip()[:1]
    folder = write_task(tmp_path / "task", config, rows=documents)
    rows, scores, lower = asked(model, tokenizer, folder, groupBy="kind")
    bounds = [{"metric": f"t/{key}", "maximumGroupGap": 0.1, "minimumGroupRows": 10} for key in keys]
    found, checks = compare(
        harness_task("Harness", groupBy="kind"),
        about(len(rows)),
        rows,
        scores,
        None,
        list(enumerate(map(Threshold.model_validate, bounds))),
        seed=7,
        resamples=200,
        lower_is_better=lower,
    )
    logged = own_run(model, tokenizer, config, folder)["samples"]
    assert [groups.metric for groups in found.groups] == list(keys)
    for groups, check in zip(found.groups, checks, strict=True):
        metric, by = keys[groups.metric]
        by_hand: dict[str, list[float]] = {}
        for sample in logged:
            if sample["filter"] == by:
                kind = sample["doc"]["kind"]
                by_hand.setdefault("other" if kind == "rare" else kind, []).append(float(sample[metric]))
        means = {name: sum(values) / len(values) for name, values in by_hand.items()}
        assert {each.name: each.rows for each in groups.groups} == {name: len(by_hand[name]) for name in means}
        assert {each.name: each.value for each in groups.groups} == pytest.approx(means, abs=1e-12)
        assert groups.pooled == ["rare"]
        assert check.estimate == groups.gap == pytest.approx(abs(means["odd"] - means["even"]))
    assert any(groups.gap for groups in found.groups), "no group is better than another: nothing was shown"


def test_the_rows_that_a_limit_takes_keep_their_groups(model: LanguageModel, tokenizer: Any, tmp_path: Path) -> None:
    folder = write_task(tmp_path, LIKELIHOOD, rows=grouped(12))
    rows, _, _ = asked(model, tokenizer, folder, groupBy="kind", limit=5)
    of_prompt = {row["q"]: row["kind"] for row in grouped(12)}
    assert [row.group for row in rows] == [of_prompt[row.prompt] for row in rows]
    assert len(rows) == 5


def test_few_shot_examples_depend_on_the_seed_alone(model: LanguageModel, tokenizer: Any, tmp_path: Path) -> None:
    folder = write_task(tmp_path, CHOICE)
    first, again = (asked(model, tokenizer, folder, fewShot=2, limit=3) for _ in range(2))
    assert first == again
    assert all(row.prompt.count("Which number") == 3 for row in first[0])


def test_a_limit_takes_rows_by_their_content(model: LanguageModel, tokenizer: Any, tmp_path: Path) -> None:
    some, _, _ = asked(model, tokenizer, write_task(tmp_path / "a", LIKELIHOOD), limit=3)
    turned, _, _ = asked(model, tokenizer, write_task(tmp_path / "b", LIKELIHOOD, rows=QUESTIONS[::-1]), limit=3)
    assert len(some) == 3
    assert {row.prompt for row in some} == {row.prompt for row in turned}


@pytest.mark.parametrize("quantization", KINDS)
def test_the_adapter_takes_part_and_nothing_is_changed(
    quantization: str, tiny: Path, tokenizer: Any, tmp_path: Path
) -> None:
    folder = write_task(tmp_path, GENERATION)
    model: Any = adapted_model(tiny, quantization)
    before, settings = frozen_hash(model.causal), (tokenizer.pad_token, tokenizer.padding_side)
    _, with_adapter, _ = asked(model, tokenizer, folder)
    with model.peft.disable_adapter():
        _, without, _ = asked(model, tokenizer, folder)
    assert [score.text for score in with_adapter] != [score.text for score in without]
    assert frozen_hash(model.causal) == before
    assert (tokenizer.pad_token, tokenizer.padding_side) == settings


def exploit(trace: Path) -> str:
    """Return a template that runs a command; its names are put together while it is rendered, so none can be read."""
    steps = "".join(f"['_' ~ '_{name}_' ~ '_']" for name in ("init", "globals", "builtins", "import"))
    return f"{{{{ self{steps}('os').system('touch {trace}') }}}}"


def test_templates_are_rendered_in_a_sandbox(model: LanguageModel, tokenizer: Any, tmp_path: Path) -> None:
    from lm_eval import utils

    trace = tmp_path / "it-ran"
    utils.apply_template(exploit(trace), {})
    assert trace.exists()  # the library alone runs it
    trace.unlink()
    folder = write_task(tmp_path / "task", {**LIKELIHOOD, "doc_to_text": exploit(trace)})
    with pytest.raises(SettingsInvalid, match="SecurityError") as refusal:
        asked(model, tokenizer, folder)
    assert refusal.value.reason is Reason.HARNESS_TASK_REFUSED
    assert not trace.exists()


def test_a_template_that_does_not_fit_the_data_is_named(model: LanguageModel, tokenizer: Any, tmp_path: Path) -> None:
    folder = write_task(tmp_path, {**LIKELIHOOD, "doc_to_text": "{{ question }}"})
    with pytest.raises(SettingsInvalid, match=r"'question' is undefined.*correct it there"):
        asked(model, tokenizer, folder)


def test_data_that_cannot_be_read_is_named(model: LanguageModel, tokenizer: Any, tmp_path: Path) -> None:
    folder = write_task(tmp_path, LIKELIHOOD)
    (folder / "test.jsonl").write_text('{"q": "no end\n')
    with pytest.raises(SettingsInvalid, match="harness task numbers cannot be run"):
        asked(model, tokenizer, folder)


def test_a_connection_is_refused_and_named(
    model: LanguageModel, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_task(tmp_path, LIKELIHOOD)

    def swallowed(*_: Any, **__: Any) -> list[dict[str, Any]]:
        """As a library does that tries a hub first, and goes on without it."""
        for place in (("192.0.2.1", 80), ("127.0.0.1", 9)):
            with socket.socket() as opened, pytest.raises(NetworkRefused):
                opened.connect(place)
        with pytest.raises(NetworkRefused):
            socket.create_connection(("example.com", 443))
        return []

    monkeypatch.setattr(harness, "_samples", swallowed)
    with pytest.raises(SettingsInvalid, match=r"tried to reach \('192.0.2.1', 80\)") as refusal:
        asked(model, tokenizer, folder)
    assert refusal.value.reason is Reason.HARNESS_TASK_REFUSED
    assert socket.getaddrinfo("127.0.0.1", 80)  # and afterwards all is as before
    assert "connect" not in vars(socket.socket)


def test_what_cannot_do_without_a_network_is_told_why() -> None:
    with pytest.raises(SettingsInvalid, match="tried to reach"), offline("numbers"):
        urllib.request.urlopen("http://example.com/", timeout=5)


def test_told_to_stop(model: LanguageModel, tokenizer: Any, tmp_path: Path) -> None:
    stop = Interruption()
    stop.request()
    with pytest.raises(Interrupted):
        asked(model, tokenizer, write_task(tmp_path, CHOICE), stop=stop)


def test_memory_that_does_not_suffice_halves_the_batch(
    model: LanguageModel, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_task(tmp_path, CHOICE)
    tried: list[int] = []
    real = harness._samples

    def small(*arguments: Any, batch_size: int, **more: Any) -> Any:
        tried.append(batch_size)
        if batch_size > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*arguments, batch_size=batch_size, **more)

    monkeypatch.setattr(harness, "_samples", small)
    fits = 2
    rows, _, _ = asked(model, tokenizer, folder)
    assert (tried, len(rows)) == ([8, 4, 2], 6)
    fits = 0
    with pytest.raises(OutOfMemory, match="single request of the harness task numbers"):
        asked(model, tokenizer, folder, batch_size=2)


def test_results_do_not_depend_on_what_else_lies_in_the_folder(
    model: LanguageModel, tokenizer: Any, tmp_path: Path
) -> None:
    folder = write_task(tmp_path, CHOICE)
    before = asked(model, tokenizer, folder)
    (folder / "utils.py").write_text("raise RuntimeError('it ran')\n")
    (folder / "other.yaml").write_text("task: other\ndoc_to_text: !function utils.f\n")
    (folder / "notes.jsonl").write_text(json.dumps({"q": 1}))
    assert asked(model, tokenizer, folder) == before
