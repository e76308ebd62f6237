# ruff: noqa: RUF001 - letters of all kinds are what this is about
"""Texts in other encodings than UTF-8: what they say is sent, and nothing else."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchata_tasks.common.errors import SpecError
from batchata_tasks.sources.documents import of_content
from batchata_tasks.sources.text_encoding import decoded

WESTERN = [
    "ä",
    "naïve café",
    "ÄÖÜ äöü ß",
    "Größe: 5 €",
    "l’été – « oui »",
    "Übermaß, „so“",
    "déjà vu…\r\nœuvre",
    "¿Qué? ¡Sí! 5 m² à 20 °C",
    "col·legi, d´accord, nº 1",
]
UNIVERSAL = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


@pytest.mark.parametrize("encoding", [*UNIVERSAL, "cp1252"])
@pytest.mark.parametrize("text", WESTERN)
def test_western_texts_are_read(text: str, encoding: str) -> None:
    """Also those of few letters: never as texts of a code page that hardly anybody uses."""
    is_unmistakable = len(text) > 1 or encoding not in ("utf-16-le", "utf-16-be")
    assert decoded(text.encode(encoding)) == (text if is_unmistakable else None)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("text", ["Привет, мир", "你好，世界", "これは日本語", "🦊 fox"])
def test_what_says_its_encoding_may_be_of_any_alphabet(text: str, encoding: str) -> None:
    """Marks are believed, and not sent."""
    assert decoded(text.encode(encoding)) == text


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1251", "Привет, как дела, друзья мои?"),
        ("koi8-r", "Привет, как дела, друзья мои?"),
        ("shift_jis", "これは日本語のテキストです。とても長い"),
        ("gbk", "这是一个中文文本文件，内容很长很长"),
        ("iso8859_7", "Αυτό είναι ένα ελληνικό κείμενο"),
        ("cp1250", "Zażółć gęślą jaźń"),
        ("cp850", "Größe"),
        ("cp437", "Übergröße"),
        ("mac_roman", "café crème à la carte"),
    ],
)
def test_other_alphabets_are_not_mangled(encoding: str, text: str) -> None:
    """A text that would come out as another one is refused, with the remedy."""
    with pytest.raises(SpecError, match=r"file: a\.txt is a text in an encoding that cannot be"):
        of_content(text.encode(encoding), "a.txt")


@pytest.mark.parametrize(
    "content",
    [
        b"\x00\x01",
        b"a\0b",
        b"\0\xff",
        b"a\0b\0",
        b"\x1f\x8b\x08caf\xe9",
        bytes(range(256)),
        codecs.BOM_UTF16_LE + b"a",
        codecs.BOM_UTF16_LE + b"\x00\xd8",
        codecs.BOM_UTF8,
        codecs.BOM_UTF8 + b"\xff",
        b"\0\0\0\0",
        "a\0b".encode("utf-16"),
        b"  \r\n",
    ],
)
def test_what_is_no_text_is_refused(content: bytes) -> None:
    """Binary content, broken texts and those that say nothing are told in one sentence."""
    assert decoded(content) is None
    with pytest.raises(SpecError, match=r"^file: a\.bin is (not a document|a text in an enc)"):
        of_content(content, "a.bin")


def test_the_decoded_text_is_what_counts_and_is_sent() -> None:
    """Size and text are those of UTF-8; the digest is that of the file, by which changes count."""
    latin, universal = "café".encode("cp1252"), "café".encode()
    one, other = of_content(latin, "a.txt"), of_content(universal, "a.txt")
    assert one.data == other.data == universal
    assert one.text == "café"
    assert one.sha256 != other.sha256
    marked = of_content(codecs.BOM_UTF8 + universal, "a.txt")
    assert (marked.data, marked.token_bound(1, 1)) == (universal, 0)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_text_or_refused(content: bytes) -> None:
    """Nothing but a sentence comes of content that is no text; a text can be sent."""
    text = decoded(content)
    assert text is None or (text.encode() and text.strip() and "\0" not in text)
    assert decoded(content) == text


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff"), min_size=1))
def test_any_text_in_utf8_is_itself(text: str) -> None:
    """UTF-8 is never taken for anything else, with a mark or without."""
    if text.strip():
        assert decoded(text.encode()) == decoded(text.encode("utf-8-sig")) == text
