"""Pages that are well-formed and whole in themselves, for tests."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """A page that is well-formed: each tag is closed in its turn, each id there once, nothing from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: Counter[str] = Counter()
        self.targets: list[str] = []
        self.images: list[str] = []
        self.tags: Counter[str] = Counter()
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open
        assert set(self.ids.values()) <= {1}
        assert {target.removeprefix("#") for target in self.targets} <= set(self.ids)
        without_names = re.sub(r'xmlns(:xlink)?="http://www\.w3\.org/[^"]*"', "", text)
        assert not re.search(r"https?:|//[a-z]+\.|@import|url\((?!#)", without_names)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        assert len(values) == len(attrs)
        assert not any(name.startswith("on") for name in values)
        self.tags[tag] += 1
        if "id" in values:
            self.ids[str(values["id"])] += 1
        for name in ("src", "href", "xlink:href"):
            value = values.get(name)
            if value is not None:
                assert value.startswith(("data:image/", "#")), value
                (self.images if value.startswith("data:") else self.targets).append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)
