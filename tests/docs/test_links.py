"""Every relative link in the documentation leads somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    document
    for pattern in ("*.md", "docs/**/*.md", "lbcore/*.md", "plugins/*/*.md", "native/*.md")
    for document in ROOT.glob(pattern)
)

_FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]+`")
_LINK = re.compile(r"\[(?:[^\]\[]|\[[^\]]*\])*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
_REFERENCE = re.compile(r"^\[[^\]]+\]:\s+(\S+)", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*\s*$", re.MULTILINE)
_ANCHOR = re.compile(r"<a\s+(?:id|name)=\"([^\"]+)\"")


def links(text: str) -> Iterator[str]:
    """The targets of all links outside of code."""
    prose = _CODE.sub("``", _FENCE.sub("", text))
    for pattern in (_LINK, _REFERENCE):
        yield from pattern.findall(prose)


def anchors(text: str) -> set[str]:
    """What ``#…`` may name: headings as GitHub turns them into anchors, and explicit ones."""
    text = _FENCE.sub("", text)
    found = set(_ANCHOR.findall(text))
    seen: dict[str, int] = {}
    for heading in _HEADING.findall(text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        count = seen.get(slug, 0)
        seen[slug] = count + 1
        found.add(f"{slug}-{count}" if count else slug)
    return found


def missing_heading(target: Path, link: str, fragment: str) -> Iterator[str]:
    """The link again when its target has no such heading."""
    if fragment not in anchors(target.read_text(encoding="utf-8")):
        yield f"{link}: no such heading"


def broken(document: Path, root: Path = ROOT) -> Iterator[str]:
    """The links of a document that lead nowhere, with the reason."""
    for link in links(document.read_text(encoding="utf-8")):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (document.parent / unquote(parts.path)).resolve() if parts.path else document
        if not target.exists():
            yield f"{link}: no such file"
        elif root not in (target, *target.parents):
            yield f"{link}: outside of the repository"
        elif target.suffix == ".md" and parts.fragment:
            yield from missing_heading(target, link, unquote(parts.fragment))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    assert list(broken(document)) == []


def test_a_broken_link_would_be_noticed(tmp_path: Path) -> None:
    links_to = "[ok](#a-title-with-signs) [bad](gone.md) `[code](x.md)`"
    text = f"# A `title`, with signs\n{links_to}\n```\n[y](y.md)\n```\n"
    document = tmp_path / "page.md"
    document.write_text(text, encoding="utf-8")
    assert list(broken(document, tmp_path)) == ["gone.md: no such file"]
    assert anchors(text) == {"a-title-with-signs"}
