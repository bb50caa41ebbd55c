"""
The text that the demonstration's base model learns from, read out of ordinary packages.

=====================  =======================================================  =====================================
package                what is in it                                            licence
=====================  =======================================================  =====================================
r-cran-janeaustenr     Jane Austen's six novels                                 public domain (the packaging: MIT)
wordnet-base           WordNet 3.0: words, what they mean, how they are used    WordNet licence
postgresql-doc-15      PostgreSQL's manual                                      PostgreSQL licence
botocore (from PyPI)   descriptions of cloud services, machines and bills       Apache-2.0
=====================  =======================================================  =====================================
"""

import gzip
import html
import json
import random
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

DOCUMENT_CHARACTERS = 1500
PROSE = re.compile(r"[A-Za-z ,.;:'\"()?!\n-]")
CONVERSATIONS = 40_000


class Turns(NamedTuple):
    """A conversation of one question and one answer, perhaps under an instruction."""

    user: str
    assistant: str
    system: str | None = None


class Sense(NamedTuple):
    """A word in one of its meanings."""

    word: str
    meaning: str
    examples: list[str]


def read_documents(folders: list[Path], draw: random.Random) -> list[str]:
    """Return all running text as documents of a page or less, in a random order."""
    documents: list[str] = []
    for read, limit in ((read_novels, 5_000_000), (read_manual, 4_000_000), (read_services, 9_000_000)):
        pages = list(_join(dict.fromkeys(read(folders))))
        if not pages:
            raise SystemExit(f"{read.__name__}: nothing found in {', '.join(map(str, folders))}")
        draw.shuffle(pages)
        while sum(map(len, pages)) > limit:
            del pages[-max(1, len(pages) // 50) :]
        documents += pages
    draw.shuffle(documents)
    return documents


def read_novels(folders: list[Path]) -> Iterator[str]:
    """The paragraphs of the novels, out of R's data files: compressed blocks of length-prefixed lines."""
    for path in _find(folders, "janeaustenr/data/Rdata.rdb"):
        data = path.read_bytes()
        at = 0
        while at < len(data):
            block = zlib.decompressobj()
            lines = list(_lines(block.decompress(data[at + 4 :])))  # each block follows its own length
            at = len(data) - len(block.unused_data)
            for paragraph in "\n".join(lines).split("\n\n"):
                yield _plain(paragraph.replace("_", ""))


def _lines(block: bytes) -> Iterator[str]:
    # A line is a type word (ASCII or UTF-8 string), its length and its bytes.
    for match in re.finditer(rb"\x00(?:\x04\x00|\x00\x80)\x09(.{4})", block, re.DOTALL):
        (length,) = struct.unpack(">i", match[1])
        yield block[match.end() : match.end() + max(length, 0)].decode()


def read_manual(folders: list[Path]) -> Iterator[str]:
    """The paragraphs of PostgreSQL's manual that are prose."""
    for path in _find(folders, "postgresql-doc-*/html/*.html"):
        yield from filter(_is_prose, _paragraphs(path.read_text(encoding="utf-8")))


def read_services(folders: list[Path]) -> Iterator[str]:
    """The descriptions in the newest version of every cloud service's definition."""
    newest = {path.parent.parent: path for path in _find(folders, "service-2.json.gz")}
    for path in newest.values():
        for text in _descriptions(json.loads(gzip.decompress(path.read_bytes()))):
            yield from filter(_is_prose, _paragraphs(text))


def _descriptions(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for child in node:
            yield from _descriptions(child)
    elif isinstance(node, dict):
        for key, child in node.items():
            if key == "documentation" and isinstance(child, str):
                yield child
            else:
                yield from _descriptions(child)


def read_senses(folders: list[Path]) -> list[Sense]:
    """Every word of WordNet with what it means."""
    found: list[Sense] = []
    for path in _find(folders, "wordnet/data.*"):
        for line in path.read_text(encoding="utf-8").splitlines():
            entry, bar, gloss = line.partition(" | ")
            if bar and gloss.isascii():
                word = entry.split()[4].partition("(")[0].replace("_", " ")
                meaning = gloss.partition('; "')[0].strip().strip(";")
                found.append(Sense(word, meaning, re.findall(r'"([^"]{15,})"', gloss)))
    if not found:
        raise SystemExit(f"no WordNet found in {', '.join(map(str, folders))}")
    return found


def make_conversations(senses: list[Sense], draw: random.Random) -> Iterator[Turns]:
    """Questions that a dictionary answers, so that the model knows turns, roles and where an answer ends."""
    for sense in draw.sample(senses, min(CONVERSATIONS, len(senses))):
        system = draw.choice((None, None, None, "You are a dictionary.", "You are a helpful assistant. Be brief."))
        yield Turns(*_ask_about(sense, draw), system)


def _ask_about(sense: Sense, draw: random.Random) -> tuple[str, str]:
    if sense.examples and draw.random() < 0.5:
        example = draw.choice(sense.examples)
        ask = draw.choice(("Use the word {} in a sentence.", "Give me an example of {}.", "How is {} used?"))
        return ask.format(sense.word), example[0].upper() + example[1:]
    if draw.random() < 0.3:
        return f"Which word means: {sense.meaning}?", sense.word
    ask = draw.choice(("What does {} mean?", "What is the meaning of {}?", "Please explain {}.", "Define {}."))
    return ask.format(sense.word), sense.meaning


class _Paragraphs(HTMLParser):
    """Collects the text of ``<p>`` elements, or all of it where there are none, without ``<pre>``."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._open: list[str] | None = None
        self._skipping = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._skipping |= tag == "pre"
        if tag == "p":
            self._close()
            self._open = []

    def handle_endtag(self, tag: str) -> None:
        self._skipping &= tag != "pre"
        if tag == "p":
            self._close()

    def handle_data(self, data: str) -> None:
        if self._open is not None and not self._skipping:
            self._open.append(data)

    def _close(self) -> None:
        if self._open:
            self.found.append(_plain("".join(self._open)))
        self._open = None


def _paragraphs(text: str) -> list[str]:
    if "<" not in text:
        return [_plain(html.unescape(text))]
    parser = _Paragraphs()
    parser.feed(text)
    return parser.found


def _plain(text: str) -> str:
    text = text.translate({0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"', 0x2013: "-", 0x2014: " - ", 0xA0: " "})
    return " ".join(text.split())


def _is_prose(paragraph: str) -> bool:
    return len(paragraph) > 80 and "§" not in paragraph and len(PROSE.findall(paragraph)) > 0.97 * len(paragraph)


def _join(paragraphs: Iterable[str]) -> Iterator[str]:
    page: list[str] = []
    for paragraph in filter(None, paragraphs):
        page.append(paragraph)
        if sum(map(len, page)) > DOCUMENT_CHARACTERS:
            yield "\n".join(page)
            page = []
    if page:
        yield "\n".join(page)


def _find(folders: list[Path], pattern: str) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob(pattern))
