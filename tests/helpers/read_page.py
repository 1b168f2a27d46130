"""Reads a page: its tags with their attributes, the text that is seen, and the pictures and sounds inside."""

import base64
from html.parser import HTMLParser
from pathlib import Path

__all__ = ["Page"]

WITHOUT_END = {"meta", "img", "source", "br"}


class Page(HTMLParser):
    """Tags with their attributes, and the visible text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in WITHOUT_END:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def uris(self, media_type: str) -> list[bytes]:
        """Return what is embedded in pictures and sounds of a type."""
        links = [value or "" for _, attrs in self.tags for name, value in attrs.items() if name in {"src", "srcset"}]
        prefix = f"data:{media_type};base64,"
        return [base64.b64decode(link.removeprefix(prefix)) for link in links if link.startswith(prefix)]
