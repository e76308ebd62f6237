"""The numbers of a folded text, with everything that each can be read as."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from batchata_tasks.citations.folding import NARROW
from batchata_tasks.citations.lexicon import CURRENCIES, NUMBER_WORDS, UNITS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchata_tasks.citations.style import Marks

_RUN = re.compile(r"\d+(?:[.,']\d+)*")
_MOST_ALIKE = 20_000  # numbers of one text with the same figures
_MARKS = re.compile(r"[.,']")
_NEXT_GROUP = re.compile(r"\d{3}(?:[.,]\d+)?")
_MOST_DIGITS = 40  # longer ones are codes, and no amounts
_TWO = 2
_GROUP, _CENTS = 3, 2  # digits of thousands, and of decimals that are no thousands
_CODES = "|".join(sorted(CURRENCIES))
_YEAR = re.compile(r"(?:19|20)\d\d")
_LEAD = re.compile(
    r"(?:(?P<sign>-)?(?P<money>(?:us|ca|au|nz|hk|a|c|r|s)?[$€£¥₹₽₩₺]"
    rf"|(?<![^\W_])(?:{_CODES}|rs)\.?)"
    rf"[ {NARROW}]?)?(?P<bracket>\()?(?P<near>-)?$"
)
_MULTIPLES = {
    3: ("thousand", "thousands", "k", "tsd", "tausend", "mille", "mil"),
    6: ("million", "millions", "millionen", "mio", "m", "mm", "mn", "mln", "millones", "millón"),
    9: (
        "billion",
        "billions",
        "bn",
        "b",
        "bln",
        "milliarde",
        "milliarden",
        "mrd",
        "milliard",
        "milliards",
    ),
    12: ("trillion", "trillions", "tn", "billionen"),
}
POWERS = {word: power for power, names in _MULTIPLES.items() for word in names}
_MAYBE_UNITS = ("m", "b", "mm")  # multiples of money; else metres, bytes and the like
_TAIL = re.compile(
    rf"(?P<percent>[ {NARROW}]?(?:%|percent(?![^\W_])|per cent(?![^\W_])|prozent(?![^\W_])"
    r"|pct(?![^\W_])|por ciento(?![^\W_])|pour cent(?![^\W_])))?"
    rf"(?P<multiple>[ {NARROW}-]?[^\W\d_]{{1,9}}(?![^\W_]))?"
)
_MONEY_AFTER = re.compile(rf"\.?[ {NARROW}]?(?:[$€£¥₹₽₩₺]|(?:{_CODES})(?![^\W_]))?")
_SPELT_BEFORE = re.compile(
    r"(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|teen|twenty|thirty|forty"
    r"|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|eins?|zwei|drei|vier|fünf|sechs"
    r"|sieben|acht|neun|zehn|elf|zwölf|zig|ßig|ssig|hundert|tausend) $"
)


_SPELT = re.compile(rf"(?<![^\W_-])({'|'.join(NUMBER_WORDS)})[ -]([^\W\d_]{{3,9}})(?![^\W_])")


class Number(NamedTuple):
    """One reading of a number in a text.

    `decimals` are those that are written, of the value. `needs` is the decimal mark that this
    reading takes for granted, `likely` whether it is taken where the text does not say.
    `left_out` is the power of ten of a word behind the number that this reading leaves out.
    `doubt`: 0 is none, 1 lets a grade be medium at best, 2 low.
    """

    start: int
    end: int
    value: Decimal
    decimals: int
    percent: bool = False
    needs: Marks | None = None
    likely: bool = True
    left_out: int = 0
    doubt: int = 0


@dataclass(frozen=True, slots=True)
class _Written:
    """One reading of the digits alone."""

    value: Decimal
    decimals: int
    needs: Marks | None = None
    likely: bool = True


def numbers(
    text: str, taken: list[tuple[int, int]], wanted: frozenset[str] | None = None
) -> tuple[list[Number], list[Marks]]:
    """Return the numbers of a text, and the decimal marks that the plainest of them show.

    `taken` are places of dates, in their order, whose digits are no numbers. Of a long text, only
    numbers with `wanted` figures are returned.
    """
    found: list[Number] = []
    shown: dict[int, list[Marks]] = {1: [], _TWO: []}
    often: Counter[str] = Counter()
    for start, end, digits, doubt in _runs(text, taken):
        fits = figures(digits) if len(digits) <= _MOST_DIGITS else ""
        sought = (wanted is None or fits in wanted) and often[fits] < _MOST_ALIKE
        often[fits] += sought
        if not sought and digits.isdigit():
            continue
        readings = list(_written(digits))
        if text[start - 1 : start] == "." and not text[max(0, start - 2) : start - 1].isalnum():
            start -= 1  # noqa: PLW2901 - ".5"
            readings = list(_written(f"0.{digits}")) if digits.isdigit() else []
        if (mark := _shown(digits, readings)) is not None:
            shown[min(_TWO, len(_MARKS.findall(digits)))].append(mark)
        if readings and sought:
            found += _read(text, start, end, readings, doubt)
    return [*found, *spelt(text)], shown[_TWO] or shown[1]


def spelt(text: str) -> Iterator[Number]:
    """Yield the millions that are told in words alone: "two million"."""
    for found in _SPELT.finditer(text):
        power = POWERS.get(found[2], 0)
        if power:
            value = Decimal(NUMBER_WORDS[found[1]]).scaleb(power)
            yield Number(found.start(), found.end(), value, 0)


def figures(written: str) -> str:
    """Return the figures of a number that stay the same in thousands, percent or cents."""
    if not written.isascii():
        written = "".join(str(int(char)) if char.isdecimal() else char for char in written)
    return _MARKS.sub("", written).strip("0")


def _runs(text: str, taken: list[tuple[int, int]]) -> Iterator[tuple[int, int, str, int]]:
    """Yield the digits that stand together: place, digits, and doubt.

    Thousands may be parted by blanks. By plain ones, they may be several numbers all the same.
    """
    dates = iter([*taken, (len(text) + 1, len(text) + 1)])
    date = next(dates)
    group: list[re.Match[str]] = []
    for run in _RUN.finditer(text):
        while date[1] <= run.start():
            date = next(dates)
        if run.start() >= date[0]:
            continue
        if group and not _goes_on(text, group, run):
            yield from _group_runs(text, group)
            group = []
        group.append(run)
    yield from _group_runs(text, group)


def _goes_on(text: str, group: list[re.Match[str]], run: re.Match[str]) -> bool:
    """Whether a run may be the next thousands of a group."""
    last = group[-1].group()
    return (
        text[group[-1].end() : run.start()] in (" ", NARROW)
        and last.isdigit()
        and len(last) <= _GROUP
        and group[0].group()[0] != "0"
        and _NEXT_GROUP.fullmatch(run.group()) is not None
    )


def _group_runs(text: str, group: list[re.Match[str]]) -> Iterator[tuple[int, int, str, int]]:
    if not group:
        return
    start, end = group[0].start(), group[-1].end()
    if len(group) > 1:
        yield start, end, "'".join(run.group() for run in group), 0
    if NARROW not in text[start:end]:
        for run in group:
            yield run.start(), run.end(), run.group(), 2 if len(group) > 1 else 0


def _written(digits: str) -> Iterator[_Written]:
    """Yield what digits with marks can be read as; nothing where they are no number."""
    if len(digits) > _MOST_DIGITS:
        return
    marks = [char for char in digits if not char.isdigit()]
    parts = _MARKS.split(digits)
    if not marks:
        if digits == "0" or digits[0] != "0":
            yield _Written(Decimal(digits), 0)
        return
    whole, last = "".join(parts[:-1]), parts[-1]
    fraction = _Written(Decimal(f"{whole}.{last}"), len(last))
    thousands = _Written(Decimal(whole + last), 0)
    kinds = list(dict.fromkeys(marks))
    grouped = _are_thousands(parts, kinds[0])
    if len(kinds) > 1:
        once = marks[-1] != "'" and marks[:-1] == marks[:1] * (len(marks) - 1)
        if once and _are_thousands(parts[:-1], kinds[0]):
            yield fraction
    elif len(marks) > 1 or kinds == ["'"]:
        if grouped:
            yield thousands
    elif not grouped:
        yield fraction
    elif kinds == ["."]:
        yield _Written(fraction.value, fraction.decimals, "point")
        yield _Written(thousands.value, 0, "comma")
    else:
        yield _Written(thousands.value, 0, "point")
        yield _Written(fraction.value, fraction.decimals, "comma", likely=False)


def _are_thousands(parts: list[str], mark: str) -> bool:
    """Whether digits are parted by thousands, or as in India: 12,34,567."""
    first, *middle, last = parts if len(parts) > 1 else [parts[0], "000"]
    if not first or first[0] == "0" or len(first) > _GROUP or len(last) != _GROUP:
        return False
    sizes = {len(part) for part in middle}
    return sizes <= {_GROUP} or (mark == "," and sizes == {_CENTS} and len(first) <= _CENTS)


def _shown(digits: str, readings: list[_Written]) -> Marks | None:
    """Return the decimal mark that a number shows: "1.234,5", "1.234.567", "12,50".

    Of numbers with one mark those with two decimals count: "4.2" may be a section.
    """
    marks = [char for char in digits if char in ".,"]
    if len(readings) != 1 or not marks:
        return None
    decimals = readings[0].decimals
    if len(marks) == 1 and "'" not in digits and decimals != _CENTS:
        return None
    return "point" if (marks[-1] == ".") is (decimals > 0) else "comma"


def _read(
    text: str, start: int, end: int, readings: list[_Written], doubt: int
) -> Iterator[Number]:
    """Yield a number with its surroundings: sign, currency, percent, multiple, brackets."""
    lead = _LEAD.search(text, max(0, start - 12), start)
    follows = _TAIL.match(text, end)
    if lead is None or follows is None or not _begins(text, lead, start):
        return
    behind = follows["multiple"] or ""
    word, attached = behind.lstrip(" -" + NARROW), behind[:1].isalpha()
    percent = bool(follows["percent"])
    power = 0 if percent or behind[:1] == "-" else POWERS.get(word, 0)
    unsure = word in _MAYBE_UNITS and not lead["money"]
    if unsure and not attached:
        power = 0
    if not percent and not power:
        hyphen = _ends(text, end, word, attached=attached)
        if hyphen is None:
            return
        doubt = max(doubt, hyphen)
    after = follows.end("multiple" if power else "percent") if power or percent else end
    for sign, least in _signs(text, lead, start, after).items():
        place = _Place(start, end, sign, max(doubt, least), percent, power, unsure)
        for one in readings:
            yield from place.readings(one)


def _begins(text: str, lead: re.Match[str], start: int) -> bool:
    """Whether a number begins here, and is no end of a word, a code, a range or a time."""
    at = lead.start() if lead.group() else start
    before, twice = text[at - 1 : at] if at else "", text[at - 2 : at - 1] if at > 1 else ""
    if lead["money"] and not lead["sign"]:
        return not (before.isdigit() or (before == "-" and twice.isalnum()))
    if before.isalnum():
        return False
    ends_a_word = before in (":", ".", ",", "'") and not twice.isdigit()
    return not (before and before in "_-/:.,'" and twice.isalnum() and not ends_a_word)


def _ends(text: str, end: int, word: str, *, attached: bool) -> int | None:
    """Return the doubt about where a number ends; None where a word or a code goes on."""
    after, beyond = text[end : end + 1], text[end + 1 : end + 2]
    if attached:
        return 0 if word in UNITS or word in CURRENCIES else None
    if after.isalnum() or (after == "_" and beyond.isalnum()):
        return None
    if after and after in "-/:" and beyond.isdigit():
        return None
    if after == "-" and beyond.isalpha():  # "a 30-day notice" says 30, "500-A" is a code
        return 1 if len(word) >= _GROUP else None
    return 0


def _signs(text: str, lead: re.Match[str], start: int, after: int) -> dict[int, int]:
    """Return the signs that a number can have, each with its doubt."""
    money = _MONEY_AFTER.match(text, after)
    tail = money.end() if money else after
    if lead["sign"] or lead["near"]:
        return {-1: 0}
    before = lead.start("bracket") if lead["bracket"] else lead.start() - 1
    if text[before : before + 1] == "(" and text[tail : tail + 1] == ")":
        if _SPELT_BEFORE.search(text, max(0, before - 12), before):
            return {1: 0}  # "thirty (30) days" is no loss
        return {-1: 0, 1: 0 if _YEAR.fullmatch(text, start, after) else 2}
    if text[after : after + 1] == "-" and not text[after + 1 : after + 2].isalnum():
        return {-1: 0}  # accounts write a loss as "500.00-", too
    return {1: 0}


@dataclass(frozen=True, slots=True)
class _Place:
    """A number's surroundings, by which its digits have a value."""

    start: int
    end: int
    sign: int
    doubt: int
    percent: bool
    power: int
    unsure: bool

    def readings(self, one: _Written) -> Iterator[Number]:
        """Yield what digits are here: of "5 %" both 0.05 and 5, of "5 million" 5,000,000."""
        value = one.value * self.sign
        number = Number(
            self.start,
            self.end,
            value,
            one.decimals,
            needs=one.needs,
            likely=one.likely,
            doubt=self.doubt,
        )
        if self.percent:
            part = value.scaleb(-2)
            yield number._replace(value=part, decimals=one.decimals + 2, percent=True)
        if self.power:
            decimals = max(0, one.decimals - self.power)
            doubt = 2 if self.unsure else self.doubt
            whole = value.scaleb(self.power)
            yield number._replace(value=whole, decimals=decimals, doubt=doubt)
            number = number._replace(left_out=0 if self.unsure else self.power)
        yield number
