"""A hook of mkdocs: what documents link to beside themselves, so that a link works on a repository's page and in the
site.

Documents of other folders, and the files that are there to be copied, become pages below `repository/`, which are not
searched. Source code stays where it is: its links become text with the path.
"""

from __future__ import annotations

import html
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
DOCS = "docs"
UNDER = "repository"
LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)\)")
FENCED = re.compile(r"^(```.*?^```)$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(`[^`\n]*`)(?!\])")
COPIED = (".yaml", ".lua")
"""Files that people copy; others are read where the source is."""
PLACES_OF_COPIES = (
    "deploy/samples/",
    "deploy/serving/",
    "deploy/kustomize/",
    "charts/trimtab/alerts",
    "charts/trimtab/values",
)
INDEX = "README.md"


def anchor(text: str, separator: str) -> str:
    """Return the anchor of a heading as repositories' pages make it."""
    plain = re.sub(r"<[^>]+>|[*`]", "", html.unescape(text))
    return re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", separator)


def on_files(files: Files, config: Any) -> Files:
    """Add what is linked to, and what that links to, until nothing new is."""
    waiting = [f"{DOCS}/{each.src_uri}" for each in files.documentation_pages()]
    seen = set(waiting)
    while waiting:
        place = waiting.pop()
        for target in targets(place):
            added = served(target)
            if added is None or added in seen or added.startswith(f"{DOCS}/"):
                continue
            seen.add(added)
            if (ROOT / added).suffix == ".md":
                waiting.append(added)
            if (ROOT / added).suffix in (".md", *COPIED):
                files.append(File.generated(config, page_of(added), content=content(added)))
            else:
                files.append(File.generated(config, page_of(added), abs_src_path=str(ROOT / added)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return a document with its links as they are in the site."""
    uri = page.file.src_uri
    place = str(page.meta["place"]) if "place" in page.meta else f"{DOCS}/{uri}"
    if not place.endswith(".md"):
        return markdown
    parts = FENCED.split(markdown)
    return "".join(part if part.startswith("```") else rewritten(part, place, uri) for part in parts)


def rewritten(text: str, place: str, uri: str) -> str:
    """Return prose with its links rewritten; what stands in backquotes is no link."""

    def link(found: re.Match[str]) -> str:
        target, hash_, fragment = found["target"].partition("#")
        if not target or "://" in target:
            return found[0]
        whole = resolved(place, target)
        page = served(whole)
        if page is None:
            return found[0] if found["image"] else f'<span title="{html.escape(whole)}">{found["text"]}</span>'
        relative = posixpath.relpath(page_of(page), posixpath.dirname(uri) or ".")
        return f"{found['image']}[{found['text']}]({relative}{hash_}{fragment})"

    kept: list[str] = []

    def hide(found: re.Match[str]) -> str:
        kept.append(found[0])
        return f"\0{len(kept) - 1}\0"

    shown = LINK.sub(link, CODE.sub(hide, text))
    return re.sub(r"\0(\d+)\0", lambda found: kept[int(found[1])], shown)


def targets(place: str) -> set[str]:
    """Return what a document links to, as paths from the root of the repository."""
    prose = CODE.sub("", FENCED.sub("", (ROOT / place).read_text(encoding="utf-8")))
    found = {each["target"].partition("#")[0] for each in LINK.finditer(prose)}
    return {resolved(place, each) for each in found if each and "://" not in each}


def resolved(place: str, target: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(place), target))


def served(path: str) -> str | None:
    """Return the file that a path becomes in the site, or None for what stays in the repository."""
    if path.startswith(f"{DOCS}/"):
        return path
    if (ROOT / path).is_dir():
        index = f"{path}/{INDEX}"
        return index if (ROOT / index).is_file() else None
    pictures = path.endswith((".svg", ".png"))
    copied = path.startswith(PLACES_OF_COPIES) and path.endswith(COPIED)
    return path if path.endswith(".md") or copied or pictures else None


def page_of(path: str) -> str:
    """Return where a file of the repository is in the site."""
    if path.startswith(f"{DOCS}/"):
        return path.removeprefix(f"{DOCS}/")
    return f"{UNDER}/{path}" + ("" if path.endswith((".md", ".svg", ".png")) else ".md")


def content(path: str) -> str:
    """Return the document of a file: itself, or what is to be copied in a block."""
    text = (ROOT / path).read_text(encoding="utf-8")
    head = f"---\nplace: {path}\nsearch: {{exclude: true}}\n---\n\n"
    if path.endswith(".md"):
        return head + text
    return f"{head}# {path}\n\n```{Path(path).suffix.removeprefix('.')}\n{text.rstrip()}\n```\n"
