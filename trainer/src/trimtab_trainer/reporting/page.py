"""report.html: what a run learned, how it went and what it cost, as one page that a team looks at together. No torch.

Whatever comes from data is escaped by the template; a curve without points is left out with a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from ..contract import Prepared, RunConfig, defining
from ..data.choosing.selection import ASKED, NEAR, WHY
from ..data.cleaning.steps import CONTROL, IGNORED
from ..pages.environment import environment, leaves
from ..training.schedule import learning_rate
from .curves import Series, line_chart
from .preferences import loss_unit, preference_results, preference_series

ANSWER_CHARACTERS = 4_000
SETTINGS_ROWS, COLUMNS_SHOWN = 200, 50
A_PATH = "a path of the machine that trained"
SIDES = (("train", "Training"), ("validation", "Validation"), ("test", "Test"))


@dataclass(frozen=True)
class HeldOutAnswer:
    """One held-out row: what was asked, the answer that it has, and what both models write."""

    prompt: str
    reference: str
    base: str
    adapter: str


@dataclass(frozen=True)
class HeldOut:
    """Answers to held-out rows of at most so many tokens; `missing` says why there are none."""

    answers: tuple[HeldOutAnswer, ...] = ()
    tokens: int = 0
    missing: str = ""


@dataclass(frozen=True)
class RunRecord:
    """Everything that the page shows.

    Attributes:
        digest: the adapter's.
        figures: what metrics.json holds.
        data: the summary in the view's manifest, and what was told of its rows.
    """

    config: RunConfig
    prepared: Prepared
    digest: str
    figures: dict[str, Any]
    data: dict[str, Any]
    held_out: HeldOut = field(default_factory=HeldOut)


@dataclass(frozen=True)
class Chart:
    """A chart with what it shows; `picture` is empty where nothing was measured."""

    title: str
    picture: Markup
    series: tuple[Series, ...]


def render(record: RunRecord) -> str:
    """Return the page."""
    config, figures = record.config, record.figures
    document = _portable(config.to_json())
    sections = {name: document[name] for name in ("lora", "quantization", "training", "checkpoint", "dataset")}
    sections["lora"] = defining(config.lora)
    ignored = sorted(record.data.get(IGNORED) or {})
    return _ENVIRONMENT.get_template("run.html.jinja").render(
        record=record,
        config=config,
        base_model=document["baseModel"]["uri"],
        training_data=document["dataset"]["training"]["uri"],
        prepared=record.prepared,
        figures=figures,
        cost=figures["cost"],
        machine=figures["machine"],
        charts=charts(record),
        loss_unit=loss_unit(config.training.method.value),
        preference=preference_results(figures),
        sides=[(name, record.data[side]) for side, name in SIDES if record.data.get(side, {}).get("rows")],
        data=record.data,
        ignored=ignored[:COLUMNS_SHOWN],
        ignored_more=max(0, len(ignored) - COLUMNS_SHOWN),
        control=(record.data.get(CONTROL) or {}).get("count", 0),
        left_out=[(count, WHY[reason]) for reason in (NEAR, ASKED) if (count := _dropped(record.data, reason))],
        notices=record.data.get("notices") or [],
        data_page=_portable(record.prepared.report_uri),
        settings=[*leaves(sections)][:SETTINGS_ROWS],
        limit=ANSWER_CHARACTERS,
    )


def _dropped(data: dict[str, Any], reason: str) -> int:
    return int((data.get("droppedFor") or {}).get(reason, 0))


def _portable(value: Any) -> Any:
    """Return a configuration without what only its machine knows: where keys lie, and paths."""
    if isinstance(value, dict):
        return {key: _portable(each) for key, each in value.items() if key != "credentials"}
    return A_PATH if isinstance(value, str) and value.startswith("file:") else value


def charts(record: RunRecord) -> tuple[Chart, ...]:
    """Return the curves of the run: loss, learning rate, gradient norm, tokens a second and memory."""
    figures, training = record.figures, record.config.training
    points, total, published = figures["curve"], figures["totalSteps"], figures["publishedStep"]

    def of(name: str, called: str, made: Callable[[float], float] = float) -> Series:
        known = ((point["step"], point.get(name)) for point in points)
        return Series("is-target", called, tuple((step, made(value)) for step, value in known if value is not None))

    validation = tuple((point["step"], point["loss"]) for point in figures["evaluations"])
    rates = tuple((point["step"], learning_rate(training, point["step"] - 1, total)) for point in points)
    return (
        _chart(
            f"Loss, {loss_unit(training.method.value)}",
            (of("loss", "training"), Series("is-baseline", "validation", validation)),
            published,
        ),
        *(_chart(title, series, published) for title, series in preference_series(figures)),
        _chart("Learning rate", (Series("is-target", "learning rate", rates),), published),
        _chart("Gradient norm, before clipping", (of("gradient_norm", "gradient norm"),), published),
        _chart("Tokens per second", (of("tokens_per_second", "tokens per second"),), published),
        _chart("Most memory so far, GiB", (of("memory", "memory", lambda value: value / 2**30),), published),
    )


def _chart(title: str, series: Iterable[Series], published: int) -> Chart:
    drawn = tuple(each for each in series if each.known)
    return Chart(title, line_chart(title, drawn, published), drawn)


_ENVIRONMENT = environment("trimtab_trainer.reporting")
