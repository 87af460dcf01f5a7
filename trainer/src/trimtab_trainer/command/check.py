"""`trimtab-trainer check`: what a run would refuse, told in seconds and before anything is started. No torch.

The checks are those of `prepare`, part by part, so that one look tells all that is wrong. Two things would take longer
and are left to it, and said: the bytes of the base model's weights, and rows behind the first few thousand. Nothing is
left behind: what is made of the rows goes to a folder of its own.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from io import StringIO
from pathlib import Path

from ..base.base_model import check_pin, digest_of_entries, entries_of, fetch_tokenizer
from ..base.embedding import untrained_tokens
from ..config import at_the_mirror, read_config, read_found
from ..contract import ExitCode, Mirrored, Reason, RunConfig, from_hub
from ..data.cleaning.steps import VOCABULARY
from ..data.encoding.tokens import Vocabulary
from ..data.reading.source import find, unread_warning
from ..data.sample import Sample, copy_first
from ..data.view import total_steps
from ..errors import SettingsInvalid, TooMuchDropped, TrainerError
from ..prepare import CheckedModel, asked_uris, check_base_model, check_writable, prepare_rows, source_uris, warnings_of
from ..report import Report
from ..storage import MANIFEST, open_store, read_manifest
from ..training.network.initial import check_initial_adapter

ROWS = 5_000
OF_NUMBERS = {Reason.SPLIT_IMPOSSIBLE, Reason.DATASET_EMPTY}
"""Refusals that may only be those of a few rows, where there are more."""
ON_HUB = (
    "it is on a hub, which only `mirror` asks; run `trimtab-trainer mirror --config ... --found mirrored.json`, and "
    "give that file to this command with --mirrored"
)


class Verdict(StrEnum):
    FINE = "fine"
    WARNING = "warning"
    REFUSED = "refused"
    UNSEEN = "not seen"


@dataclass(frozen=True)
class Finding:
    """What was found of one part of the configuration, as a sentence; `refusal` is what a run would end with."""

    verdict: Verdict
    part: str
    said: str
    refusal: TrainerError | None = None


@dataclass
class Findings:
    """All that was found, in order."""

    all: list[Finding] = field(default_factory=list)

    def add(self, verdict: Verdict, part: str, said: str) -> None:
        self.all.append(Finding(verdict, part, said))

    def attempt(self, part: str, look: Callable[[], str]) -> TrainerError | None:
        """Look at a part; note what is said of it, or what a run would be refused for, which is returned."""
        try:
            self.add(Verdict.FINE, part, look())
        except TrainerError as error:
            self.all.append(Finding(Verdict.REFUSED, part, f"{error.reason.value}: {error.message}", error))
            return error
        return None

    @property
    def refusals(self) -> list[TrainerError]:
        """What a run would end with, one after the other."""
        return [each.refusal for each in self.all if each.refusal is not None]


def check(config: RunConfig, scratch: Path, rows: int = ROWS) -> Findings:
    """Look at everything that a run reads and writes.

    Args:
        config: the run.
        scratch: an empty folder.
        rows: of each side, from the beginning.

    Raises:
        StorageFailed: object storage does not answer; nothing is said of what is there then.
    """
    found = Findings()
    checked: list[CheckedModel] = []
    found.attempt("output", lambda: _output(config))
    data_there = not any(map(from_hub, config.dataset.uris))
    if data_there:
        data_there = found.attempt("dataset", lambda: _files(config, found)) is None
    else:
        found.add(Verdict.UNSEEN, "dataset", ON_HUB)
    if from_hub(config.base_model.uri):
        found.add(Verdict.UNSEEN, "baseModel", ON_HUB)
    elif found.attempt("baseModel", lambda: _base_model(config, checked)) is None:
        for warning in checked[0].warnings:
            found.add(Verdict.WARNING, "baseModel", warning)
        _initial_adapter(found, config, checked[0], _pin(found, config, checked[0]))
        if data_there:
            _rows(found, config, checked[0], scratch, rows)
    return found


def _output(config: RunConfig) -> str:
    check_writable(open_store(config.output.uri, config.output.credentials))
    return f"{config.output.uri} can be written to, each object once"


def _files(config: RunConfig, told: Findings) -> str:
    uris = (*source_uris(config).values(), *asked_uris(config))
    there = {uri: find(uri, config.dataset.credentials) for uri in uris}
    for warning in filter(None, (unread_warning(uri, each.unread) for uri, each in there.items())):
        told.add(Verdict.WARNING, "dataset", warning)
    files = [file for uri in uris for file in there[uri].files]
    return f"{len(files)} files with {sum(size for _, size in files):,} bytes"


def _base_model(config: RunConfig, checked: list[CheckedModel]) -> str:
    known = check_base_model(config)
    checked.append(known)
    size = sum(known.model.sizes.values())
    all_of_it = f"all {known.targets.reached.weights:,} weights are trained"
    trained = f"{known.targets.adapted} layers are adapted" if config.adapter is not None else all_of_it
    return f"{known.model.config.get('model_type')}, {size:,} bytes; {trained}"


def _pin(found: Findings, config: RunConfig, checked: CheckedModel) -> str | None:
    """Compare the digest where it is known without reading the weights; return it."""
    model = checked.model
    noted = read_manifest(model.store, "") is not None
    if noted:
        found.attempt("baseModel.digest", lambda: _digest(config, checked))
        return digest_of_entries(entries_of(model))
    if config.base_model.digest is not None:
        found.add(
            Verdict.UNSEEN,
            "baseModel.digest",
            f"there is no {MANIFEST} beside the weights, so a run reads all of them to compare it",
        )
    return None


def _digest(config: RunConfig, checked: CheckedModel) -> str:
    digest = digest_of_entries(entries_of(checked.model))
    check_pin(config.base_model, digest)
    return digest


def _initial_adapter(found: Findings, config: RunConfig, checked: CheckedModel, base_model: str | None) -> None:
    """Look at the adapter to go on from; whether it is of this base model only where that digest is known."""
    part = "lora.initialAdapter"

    def look() -> str:
        verified = check_initial_adapter(config, base_model, checked.targets)
        return f"{verified.digest}, of the shape that is asked for" if verified is not None else ""

    if config.adapter is None or config.adapter.initial_adapter is None:
        return
    if found.attempt(part, look) is None and base_model is None:
        found.add(Verdict.UNSEEN, part, "whether it is of this base model, of which a run reads all weights to know")


def _rows(found: Findings, config: RunConfig, checked: CheckedModel, scratch: Path, rows: int) -> None:
    """Prepare the first rows as a run prepares all of them, into the scratch folder."""
    samples: dict[str, Sample] = {}
    quiet = Report(stream=StringIO())
    sources = source_uris(config)
    asked = {f"evaluationData {number}": uri for number, uri in enumerate(asked_uris(config), 1)}

    def look() -> str:
        for name, uri in (sources | asked).items():
            samples[name] = copy_first(uri, config.dataset.credentials, scratch / "sources" / name, rows)
        files = fetch_tokenizer(checked.model, scratch / "tokenizer")
        output = open_store((scratch / "output").as_uri(), None)
        view = prepare_rows(
            output,
            config,
            checked,
            {name: samples[name] for name in sources},
            files,
            asked=tuple(samples[name] for name in asked),
            scratch=scratch,
            report=quiet,
        )
        summary = view.summary
        for warning in warnings_of(summary):
            found.add(Verdict.WARNING, "rows", warning)
        if untrained := untrained_tokens(checked.model, Vocabulary.of(summary[VOCABULARY])):
            found.add(Verdict.WARNING, "baseModel", untrained)
        train, all_of_it = summary["train"], all(sample.whole for sample in samples.values())
        steps = f"; {total_steps(config.training, train['sequences']):,} steps" if all_of_it else ""
        held_out = f"{summary['validation']['rows']:,} to validate on and {summary['test']['rows']:,} to test on"
        return (
            f"{train['rows']:,} rows with {train['tokens']:,} tokens to train on, {held_out}, "
            f"{summary['dropped']:,} dropped{steps}"
        )

    refusal = found.attempt("rows", look)
    of_numbers = refusal is None or refusal.reason in OF_NUMBERS or isinstance(refusal, TooMuchDropped)
    unseen = [*_unseen(samples, rows)] if of_numbers else []
    if refusal is not None and unseen:
        last = found.all.pop()
        found.add(Verdict.WARNING, last.part, f"of the rows that were looked at: {last.said}")
    for said in unseen:
        found.add(Verdict.UNSEEN, "rows", said)


def _unseen(samples: dict[str, Sample], rows: int) -> Iterator[str]:
    """Yield what of each side was not looked at."""
    for name, sample in samples.items():
        if sample.left_out:
            more = f" and {len(sample.left_out) - 3} more" if len(sample.left_out) > 3 else ""
            yield f"{name}: {', '.join(sample.left_out[:3])}{more}"
        elif not sample.whole:
            yield f"{name}: rows after the first {rows:,}; --rows looks at more"


def run(options: argparse.Namespace) -> int:
    """Check and print; return the exit code that a run would end with.

    Raises:
        SettingsInvalid: the configuration itself cannot be read.
    """
    config = read_config(options.config)
    if not isinstance(config, RunConfig):
        raise SettingsInvalid(f"{options.config} is no configuration of a run; `prepare` looks at those of evaluations")
    if (mirrored := read_found(options.mirrored, Mirrored, "--mirrored")) is not None:
        config = at_the_mirror(config, mirrored)
    with tempfile.TemporaryDirectory(prefix="trimtab-check-") as scratch:
        found = check(config, Path(scratch), options.rows)
    print(table(found), flush=True)
    return int(found.refusals[0].exit_code if found.refusals else ExitCode.DONE)


def table(found: Findings) -> str:
    """Return the findings for people, one a line, and in the last line whether a run would be refused."""
    width = max(len(each.part) for each in found.all)
    lines = [f"{each.verdict.value:<8}  {each.part:<{width}}  {each.said}" for each in found.all]
    refused = len(found.refusals)
    last = f"a run would be refused: {refused} to correct" if refused else "nothing here would refuse a run"
    return "\n".join([*lines, last])
