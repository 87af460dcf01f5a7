"""HTML as tests read it: its elements, their text, and whether every one of them is closed in order."""

from __future__ import annotations

from html.parser import HTMLParser

CANARY = "<script>alert('canary')</script>\"'><img src=x onerror=alert(1)>{{ 7 * 7 }}</pre></style>&amp;"
"""Text that would become markup, or end some, where it is not escaped."""
VOID = {"meta", "link", "br", "path", "rect", "img"}


class Page(HTMLParser):
    """The page's elements, their text, and whether every one of them is closed in order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.first_inside: dict[str, list[str]] = {}
        self._open: list[list[str]] = []
        """Each open element, then the names of those in it."""
        self._words: list[str] = []

    @classmethod
    def of(cls, text: str) -> Page:
        page = cls()
        page.feed(text)
        page.close()
        assert page._open == []
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._open:
            parent = self._open[-1]
            if len(parent) == 1:
                self.first_inside.setdefault(parent[0], []).append(tag)
            parent.append(tag)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append([tag])

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1][0] != "style":
            self._words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._words).split())
