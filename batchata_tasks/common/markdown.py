"""Foreign text in Markdown: it is shown as it is, and does nothing.

Rows and providers may say anything: a picture that is fetched from their server, a link, HTML.
"""

from __future__ import annotations

import re

from batchata_tasks.common.text import printable

# code in single backticks, of which commands in our sentences are; what is in it does nothing
_CODE = re.compile(r"(?<!`)`[^`]+`(?!`)")
# a `_` within a word is just that, and addresses are links by their `://`, `www.` or `@`
_ACTIVE = re.compile(
    r"[\\`*\[\]<>&~|@]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])|:(?=//)|(?<=www)\.", re.IGNORECASE
)
_AT_START = re.compile(r"\s*([-+*>#=]|\d+[.)])(\s|$)|\s*#|\s*(---|===)")


def escaped(text: str) -> str:
    """Return a text as one line of Markdown that shows it as it is, but for code in backticks.

    It may stand in a table, or after other words, but not at the start of a paragraph.
    """
    text, shown, end = printable(text), list[str](), 0
    for code in _CODE.finditer(text):
        # even in code, a bar would end the cell of a table
        shown += [_without_effect(text[end : code.start()]), code[0].replace("|", r"\|")]
        end = code.end()
    return "".join([*shown, _without_effect(text[end:])])


def inert(text: str) -> str:
    """Return a text that is the same whether it is shown as Markdown or as it is, in one line.

    One that Markdown would show otherwise becomes code, whose backticks can be read, too.
    """
    text = printable(text)
    if _ACTIVE.search(text) is None and _AT_START.match(text) is None:
        return text
    quoted = text.replace("`", "'")
    return f"`{quoted}`"


def _without_effect(text: str) -> str:
    return _ACTIVE.sub(r"\\\g<0>", text)
