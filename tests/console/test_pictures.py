"""Every page at every width, light and dark: nothing is wider than its window, nothing is complained of, and what can
be pressed has a name. Pictures of the documents go where TRIMTAB_PICTURES says, such as docs/pictures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.console.conftest import Opens, Team
from tests.console.objects import API, digest, hostile
from tests.console.test_day import clean
from tests.console.window import Window

pytestmark = pytest.mark.cluster

WIDTHS = (400, 820, 1440, 1920)
PAGES = {
    "overview": "",
    "runs": "/finetunejobs",
    "run": "/finetunejobs/field-guide-v4",
    "failed": "/finetunejobs/chat-tone-v1",
    "hostile": "/finetunejobs/hostile",
    "manifest": "/finetunejobs/hostile/manifest",
    "log": "/finetunejobs/field-guide-v4/log",
    "events": "/finetunejobs/field-guide-v4/events",
    "evaluation": "/evaluations/field-guide-v2",
    "rollout": "/adapterrollouts/field-guide-next",
    "back": f"/adapterrollouts/field-guide-next/back?to={digest('field-guide-v1')}",
    "sweep": "/finetunesweeps/rate-search",
    "compare": "/compare?name=field-guide-v4&name=field-guide-v3&name=field-guide-v2",
    "approvals": "/approvals",
    "new": "/new?name=guide&base_model=s3://models/b&data=s3://rows/&output=s3://out/a&secret_name=object-storage",
}
DOCUMENTED = [
    ("overview", 1440, False),
    ("run", 1440, False),
    ("evaluation", 1440, True),
    ("overview", 400, True),
    ("run", 400, False),
    ("compare", 400, False),
]
UNNAMED = """
[...document.querySelectorAll('a, button, input:not([type=hidden]), select, textarea, svg[role=img], summary')]
  .filter((each) => each.checkVisibility && each.checkVisibility())
  .filter((each) => !(each.textContent.trim() || each.getAttribute('aria-label') || each.placeholder
    || (each.labels && each.labels.length) || each.title))
  .map((each) => each.outerHTML.slice(0, 120))
"""
CRUSHED = """
[...document.querySelectorAll('td.words, td .words, .scroll td.act .button')]
  .filter((each) => each.checkVisibility() && each.textContent.trim().length > 12)
  .filter((each) => (each.closest('td').clientWidth < 90 && each.offsetHeight > 60)
    || (each.matches('.button')
      && each.getBoundingClientRect().right > each.closest('.scroll').getBoundingClientRect().right + 1))
  .map((each) => each.textContent.slice(0, 60))
"""
BROKEN = """
[...document.querySelectorAll('.results .name .words, .scroll:has(.results)')]
  .filter((each) => innerWidth >= 1440 && (each.matches('.scroll') ? each.scrollWidth > each.clientWidth
    : each.textContent.length < 20 && each.getClientRects().length > 1))
  .map((each) => each.textContent.trim().slice(0, 60))
"""


def test_every_page_fits_every_window(opens: Opens, team_of_three: Team, tmp_path: Path) -> None:
    subject = {"kind": "AdapterRollout", "name": "field-guide-next", "digest": digest("field-guide-v3")}
    said = {"author": "jane.of.the.field.guide@example.com", "decision": "Comment", "message": "Who asked for this?"}
    review = {"apiVersion": API, "kind": "Review", "metadata": {"name": "asked"}, "spec": {"subject": subject, **said}}
    team_of_three.make(review)
    with opens("jane") as page:
        for name, path in PAGES.items():
            for width in WIDTHS:
                for dark in (False, True) if width in (400, 1440) else (False,):
                    show(page, team_of_three, path, width, dark=dark)
                    wide = page.run("document.documentElement.scrollWidth")
                    assert wide <= width, f"{name} is {wide} pixels wide in a window of {width}"
                    assert page.run(UNNAMED) == [], name
                    assert page.run(CRUSHED) + page.run(BROKEN) == [], f"{name} in a window of {width}"
                    page.picture(tmp_path / f"{name}-{width}{'-dark' if dark else ''}.png")
        clean(page)


def test_pictures_of_the_documents(opens: Opens, team_of_three: Team, tmp_path: Path) -> None:
    folder = Path(os.environ.get("TRIMTAB_PICTURES", tmp_path))
    place = f"/apis/trimtab.dev/v1alpha1/namespaces/{team_of_three.namespace}/finetunejobs"
    team_of_three.server.delete(f"{place}/hostile")
    with opens("jane") as page:
        for name, width, dark in DOCUMENTED:
            show(page, team_of_three, PAGES[name], width, dark=dark)
            page.picture(folder / f"console-{name}{'' if width == 1440 else f'-{width}'}.webp", most=1400)
        clean(page)
    team_of_three.make(hostile())


def show(page: Window, team: Team, path: str, width: int, *, dark: bool) -> None:
    page.size(width, dark=dark)
    page.visit(f"/ns/{team.namespace}{path}")
    page.wait("document.fonts.status === 'loaded'")


def test_a_file_to_keep_draws_without_anything_else(opens: Opens, team_of_three: Team, tmp_path: Path) -> None:
    from tests.browser import opened

    with opens("jane") as page:
        for name in ("", "/finetunejobs/field-guide-v4", "/evaluations/field-guide-v2", "/finetunesweeps/rate-search"):
            text = page.run(f"fetch('/ns/{team_of_three.namespace}{name}?export').then((told) => told.text())")
            file = tmp_path / f"{name.rpartition('/')[2] or 'overview'}.html"
            file.write_text(text)
            (tmp_path / "alone").mkdir(exist_ok=True)
            seen = opened(file, tmp_path / "alone")
            assert seen.complaints == ()
            assert seen.requests == ()
