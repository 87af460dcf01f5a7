"""Files of the pages: vendored ones are those of the lock, and colours can be read."""

from __future__ import annotations

import hashlib
import json
import re
from importlib.resources import files
from itertools import product
from pathlib import Path

import pytest
from trimtab.kinds import lower_is_better
from trimtab_trainer.contract import evaluation as contract

ASSETS = Path(str(files("trimtab.console") / "assets"))
STYLE = (ASSETS / "console.css").read_text()
TEMPLATES = sorted((ASSETS.parent / "templates").glob("*.html"))
SCHEMES = {
    "light": re.search(r":root \{(.*?)\n\}", STYLE, re.DOTALL),
    "dark": re.search(r':root\[data-theme="dark"\] \{(.*?)\n\}', STYLE, re.DOTALL),
    "dark by the system": re.search(r':root:not\(\[data-theme="light"\]\) \{(.*?)\n  \}', STYLE, re.DOTALL),
}
GROUNDS = ("ground", "surface", "sunk")
PAIRS = [
    *product(("text", "muted", "accent"), GROUNDS),
    *product(("good", "bad", "wait"), ("surface", "ground")),
    *((each, f"{each}-ground") for each in ("accent", "good", "bad", "wait")),
    ("on-accent", "accent"),
]
LINES = [*product([f"hue-{number}" for number in range(6)], ("surface",)), ("good", "line"), ("accent", "line")]


def colours(scheme: str) -> dict[str, str]:
    found = SCHEMES[scheme]
    assert found is not None
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", found[1]))


def contrast(first: str, second: str) -> float:
    """WCAG 2.2, contrast ratio of relative luminances."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_words_can_be_read(scheme: str) -> None:
    found = colours(scheme)
    poor = {pair: round(contrast(*(found[each] for each in pair)), 2) for pair in PAIRS}
    assert not {pair: ratio for pair, ratio in poor.items() if ratio < 4.5}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_lines_can_be_told_from_their_ground(scheme: str) -> None:
    found = colours(scheme)
    poor = {pair: round(contrast(*(found[each] for each in pair)), 2) for pair in LINES}
    assert not {pair: ratio for pair, ratio in poor.items() if ratio < 3}


def test_both_ways_to_dark_are_the_same() -> None:
    assert colours("dark") == colours("dark by the system")


def test_vendored_files_are_those_of_the_lock() -> None:
    entries = json.loads((ASSETS / "vendored.json").read_text())
    there = {each.name for each in (ASSETS / "vendor").iterdir()} - {"LICENSES"}
    assert there == {each["to"] for each in entries}
    for each in entries:
        assert hashlib.sha256((ASSETS / "vendor" / each["to"]).read_bytes()).hexdigest() == each["sha256"], each["to"]
        assert f"==== {each['package']}@{each['version']}\n" in (ASSETS / "vendor" / "LICENSES").read_text()


def test_styles_ask_for_nothing_from_elsewhere() -> None:
    for file in [*ASSETS.glob("*.css"), *(ASSETS / "vendor").glob("*.css")]:
        assert not re.search(r"@import|https?://", file.read_text()), file
    assert "url(" not in STYLE  # an exported page has it inside


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda file: file.name)
def test_templates_trust_nobody(template: Path) -> None:
    text = template.read_text()
    assert not re.search(r"\|\s*safe\b|autoescape", text)
    assert not re.search(r"\sstyle=|\son\w+=", text)


def test_less_is_better_for_the_same_metrics_as_in_the_trainer() -> None:
    assert lower_is_better() == contract.LOWER_IS_BETTER
