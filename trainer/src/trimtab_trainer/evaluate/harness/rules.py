"""What a configuration of lm-evaluation-harness may say: an allow-list of keys, values and templates.

Whatever names code, a model, or a place that this run does not know is refused by name; so is what the harness would
only stumble over after the weights are loaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from jinja2 import StrictUndefined, TemplateError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ...contract import Reason
from ...errors import SettingsInvalid
from .yaml_files import refused

ValueCheck = Callable[[str, Any], None]

OUTPUT_TYPES = ("loglikelihood", "multiple_choice", "generate_until", "loglikelihood_rolling")
DATASET_SUFFIXES = {"json": (".json", ".jsonl"), "csv": (".csv",), "parquet": (".parquet",)}
SPLITS = ("test_split", "validation_split", "training_split", "fewshot_split")
MEANS: dict[str, tuple[str, ...]] = {
    "loglikelihood": ("acc",),
    "multiple_choice": ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"),
    "generate_until": ("exact_match",),
    "loglikelihood_rolling": (),
}
"""Metrics of each output type whose value is the mean over rows, so that it can be resampled by rows."""
DEFAULT_METRICS = {
    "loglikelihood": ("perplexity", "acc"),
    "multiple_choice": ("acc", "acc_norm"),
    "generate_until": ("exact_match",),
    "loglikelihood_rolling": ("word_perplexity", "byte_perplexity", "bits_per_byte"),
}
"""As the harness has them where metric_list is absent."""
INSTEAD = {
    "perplexity": "Perplexity",
    "word_perplexity": "Perplexity",
    "byte_perplexity": "Perplexity",
    "bits_per_byte": "Perplexity",
    "bleu": "Generation",
    "chrf": "Generation",
    "chrf++": "Generation",
    "f1": "Classification",
}
"""The type of task that gives such a figure."""
CODE = {
    "class": "names a Python class",
    "custom_dataset": "names a Python function",
    "process_docs": "names a Python function",
    "process_results": "names a Python function",
    "unsafe_code": "asks to run code that the model wrote",
    "use_prompt": "fetches a prompt from elsewhere",
    "group": "makes it a group of tasks",
    "aggregate_metric_list": "makes it a group of tasks",
    "task_list": "makes it a group of tasks",
    "doc_to_image": "asks for images",
    "doc_to_audio": "asks for sound",
    "doc_to_decontamination_query": "asks for a corpus of the training data",
}
FILTERS: dict[str, tuple[str, ...]] = {
    "regex": ("regex_pattern", "group_select", "fallback"),
    "multi_choice_regex": (
        "regex_pattern",
        "group_select",
        "fallback",
        "ignore_case",
        "ignore_punctuation",
        "regexes_to_ignore",
    ),
    "remove_whitespace": (),
    "take_first": (),
    "take_first_k": ("k",),
    "majority_vote": (),
    "lowercase": (),
    "uppercase": (),
    "map": ("mapping_dict", "default_value"),
}
GENERATION = ("until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k")
INSIDES = re.compile(r"__[a-z_]*[a-z]__\Z")
"""Names as Python gives them to what leads from a value to code."""
METRIC_OPTIONS = ("ignore_case", "ignore_punctuation", "ignore_numbers", "regexes_to_ignore")


def template_environment() -> ImmutableSandboxedEnvironment:
    """Return the environment that a task's templates are parsed and rendered in.

    It is the harness's own but for the sandbox: no attributes that lead to code, no changes of values.
    """
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["regex_replace"] = _regex_replace
    return environment


def _regex_replace(string: str, pattern: str, repl: str, count: int = 0) -> str:
    return re.sub(pattern, repl, string, count=count)


def check_configuration(config: dict[str, Any], place: str) -> None:
    """Refuse what is not allowed in a task's configuration, included files merged into it.

    Raises:
        SettingsInvalid: HARNESS_TASK_REFUSED; METRIC_NOT_APPLICABLE for figures that are no means over rows.
    """
    for key, value in config.items():
        if key in CODE:
            raise refused(f"{place}: {key}", f"it {CODE[key]}, which is not done here; remove it")
        if key not in KEYS:
            raise refused(f"{place}: {key}", f"an unknown key; the keys are {', '.join(sorted(KEYS))}")
        if value is not None:
            KEYS[key](f"{place}: {key}", value)
    for key in ("dataset_path", "doc_to_target"):
        if config.get(key) is None:
            raise refused(place, f"{key} is missing; write it")
    kind = config.get("output_type", "generate_until")
    if kind == "multiple_choice" and config.get("doc_to_choice") is None:
        raise refused(place, "doc_to_choice is missing, a multiple_choice task needs it; write it")
    if kind != "loglikelihood_rolling" and config.get("doc_to_text") is None:
        raise refused(place, "doc_to_text is missing; write it")
    _metrics(config, kind, place)


def metric_names(config: dict[str, Any]) -> list[str]:
    """Return the metrics of a configuration, in their order."""
    if config.get("metric_list") is None:
        return list(DEFAULT_METRICS[config.get("output_type", "generate_until")])
    return [entry["metric"] for entry in config["metric_list"]]


def _metrics(config: dict[str, Any], kind: str, place: str) -> None:
    for name in metric_names(config):
        if name in MEANS[kind]:
            continue
        instead = f"take a task of type {INSTEAD[name]} for it" if name in INSTEAD else "leave it out of metric_list"
        allowed = f"; those of {kind} are {', '.join(MEANS[kind])}" if MEANS[kind] else ""
        raise SettingsInvalid(
            f"{place}: metric_list: {name} of a {kind} task is no mean over rows{allowed}; {instead}",
            Reason.METRIC_NOT_APPLICABLE,
        )
    for entry in config.get("metric_list") or ():
        if entry.get("aggregation", "mean") != "mean":
            raise SettingsInvalid(
                f"{place}: metric_list: {entry['metric']} is aggregated by {entry['aggregation']}, which cannot be "
                "resampled by rows; write aggregation: mean",
                Reason.METRIC_NOT_APPLICABLE,
            )


# -- checks of single values ---------------------------------------------------------------------------------------


def _is(kinds: type | tuple[type, ...], what: str) -> ValueCheck:
    def check(place: str, value: Any) -> None:
        own = kinds if isinstance(kinds, tuple) else (kinds,)
        if not isinstance(value, own) or (isinstance(value, bool) and bool not in own):
            raise refused(place, f"{value!r} is not {what}; write {what}")

    return check


_text = _is(str, "text")
_flag = _is(bool, "true or false")
_count = _is(int, "a whole number")
_number = _is((int, float), "a number")


def _one_of(*allowed: Any) -> ValueCheck:
    def check(place: str, value: Any) -> None:
        if not any(value == each and type(value) is type(each) for each in allowed):
            raise refused(place, f"{value!r} is not possible here; write {' or '.join(map(str, allowed))}")

    return check


def _between(low: int, high: int) -> ValueCheck:
    def check(place: str, value: Any) -> None:
        _count(place, value)
        if not low <= value <= high:
            raise refused(place, f"{value} is not between {low} and {high}; write a number that is")

    return check


def _list(place: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise refused(place, "it must be a list that is not empty; write one")
    return value


def _mapping(place: str, value: Any, allowed: dict[str, ValueCheck]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise refused(place, "it must be a mapping; write one")
    for key, item in value.items():
        if key not in allowed:
            raise refused(f"{place}.{key}", f"an unknown key; the keys are {', '.join(sorted(allowed))}")
        if item is not None:
            allowed[key](f"{place}.{key}", item)
    return value


def _anything(place: str, value: Any) -> None:
    """Metadata and samples are never read as anything but values."""


def _texts(place: str, value: Any) -> None:
    for index, each in enumerate(_list(place, [value] if isinstance(value, str) else value)):
        _text(f"{place}[{index}]", each)


def _template(place: str, value: Any) -> None:
    """Refuse a template that does not parse, takes in other templates, or reaches for Python's insides.

    The sandbox refuses the last again when it renders; here it is known before weights are loaded.
    """
    _text(place, value)
    try:
        tree = template_environment().parse(value)
    except (TemplateError, RecursionError) as error:
        raise refused(place, f"this is not a Jinja template ({error}); correct it") from error
    for node in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
        raise refused(f"{place} line {node.lineno}", "a template cannot take in another one; write it here")
    for access in tree.find_all((nodes.Getattr, nodes.Const)):
        name = access.attr if isinstance(access, nodes.Getattr) else getattr(access, "value", None)
        reaches = INSIDES if isinstance(access, nodes.Const) else re.compile("_")
        if isinstance(name, str) and reaches.match(name):
            raise refused(f"{place} line {access.lineno}", f"{name} reaches for Python's insides; remove it")


def _choices(place: str, value: Any) -> None:
    if isinstance(value, list):
        _texts(place, value)
    elif isinstance(value, dict):
        _texts(place, list(value.values()))
    else:
        _template(place, value)


def _target(place: str, value: Any) -> None:
    if isinstance(value, int) and not isinstance(value, bool):
        return
    if isinstance(value, list):
        _texts(place, value)
    else:
        _template(place, value)


def _dataset(place: str, value: Any) -> None:
    _mapping(place, value, {"data_files": _anything, "field": _text, "delimiter": _text})


def _metric_list(place: str, value: Any) -> None:
    seen = set()
    for index, entry in enumerate(_list(place, value)):
        at = f"{place}[{index}]"
        options = dict.fromkeys(METRIC_OPTIONS[:3], _flag) | {METRIC_OPTIONS[3]: _texts}
        _mapping(at, entry, {"metric": _text, "aggregation": _text, "higher_is_better": _flag, **options})
        if entry.get("metric") is None or entry["metric"] in seen:
            raise refused(at, "it names no metric, or one that was named before; write each metric once")
        seen.add(entry["metric"])


def _filter_list(place: str, value: Any) -> None:
    names = set()
    for index, pipeline in enumerate(_list(place, value)):
        at = f"{place}[{index}]"
        _mapping(at, pipeline, {"name": _text, "filter": _anything})
        if not pipeline.get("name") or pipeline["name"] in names:
            raise refused(at, "it has no name, or that of another; give each a name of its own")
        names.add(pipeline["name"])
        for number, step in enumerate(_list(f"{at}.filter", pipeline.get("filter"))):
            name = step.get("function") if isinstance(step, dict) else None
            if name not in FILTERS:
                raise refused(
                    f"{at}.filter[{number}]", f"{name} is no filter that runs here; take {', '.join(FILTERS)}"
                )
            _mapping(f"{at}.filter[{number}]", step, dict.fromkeys((*FILTERS[name], "function"), _anything))


def _generation(place: str, value: Any) -> None:
    checks: tuple[ValueCheck, ...] = (_texts, _between(1, 32_768), _flag, _number, _number, _between(0, 1_000_000))
    _mapping(place, value, dict(zip(GENERATION, checks, strict=True)))


def _samples(place: str, value: Any) -> None:
    if not all(isinstance(row, dict) for row in _list(place, value)):
        raise refused(place, "samples are mappings of columns to values; write them so")


_EXAMPLES: dict[str, ValueCheck] = {
    "sampler": _one_of("default", "first_n"),
    "split": _text,
    "samples": _samples,
    "doc_to_text": _target,
    "doc_to_target": _target,
    "doc_to_choice": _choices,
    "gen_prefix": _template,
    "fewshot_delimiter": _text,
    "target_delimiter": _text,
}


def _examples(place: str, value: Any) -> None:
    _mapping(place, value, _EXAMPLES)


KEYS: dict[str, ValueCheck] = {
    "task": _text,
    "task_alias": _text,
    "tag": _anything,
    "dataset_path": _one_of(*DATASET_SUFFIXES),
    "dataset_name": _text,
    "dataset_kwargs": _dataset,
    **dict.fromkeys(SPLITS, _text),
    "output_type": _one_of(*OUTPUT_TYPES),
    "doc_to_text": _target,
    "doc_to_target": _target,
    "doc_to_choice": _choices,
    "description": _template,
    "target_delimiter": _text,
    "fewshot_delimiter": _text,
    "gen_prefix": _template,
    "fewshot_config": _examples,
    "num_fewshot": _between(0, 64),
    "metric_list": _metric_list,
    "generation_kwargs": _generation,
    "repeats": _between(1, 64),
    "filter_list": _filter_list,
    "should_decontaminate": _one_of(False),
    "metadata": _anything,
}
"""Every key that a task may have, with the check of its value."""
