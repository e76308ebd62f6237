"""Tables of Markdown: which heading stands above a place."""

from __future__ import annotations

from bisect import bisect_right

from batchata_tasks.citations.folding import JOINT

_RULE = frozenset("|:- \t")  # characters of the line between heading and rows


class Headings:
    """The headings of the tables in a folded text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._starts: list[int] = []
        self._cells: list[list[str]] = []  # of the table in which a line is
        at, cells, before = 0, list[str](), ""
        for line in text.split("\n"):
            plain = line.replace(JOINT, "").strip()
            if "|" not in plain:
                cells = []
            elif "|" in before and "--" in plain and _RULE.issuperset(plain):
                cells = before.split("|")
            self._starts.append(at)
            self._cells.append(cells)
            at, before = at + len(line) + 1, plain
        self._any = any(self._cells)

    def above(self, at: int) -> str:
        """Return the heading of the column in which a place is; nothing outside of tables."""
        if not self._any:
            return ""
        line = bisect_right(self._starts, at) - 1
        cells, column = self._cells[line], self._text.count("|", self._starts[line], at)
        return cells[column] if column < len(cells) else ""
