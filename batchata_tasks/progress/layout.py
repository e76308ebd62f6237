"""The layout of a run's display: lines that fit a terminal."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.text import Text

from batchata_tasks.common.money import dollars, pico_from_usd
from batchata_tasks.common.text import clock, pluralize, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Batches = Sequence[Mapping[str, Any]]

OPEN = ("unclear", "submitted", "collected", "held", "overdue")
_COLUMNS = ("batch", "provider", "model", "requests", "done", "state", "sent", "batch id")
_STATES = {
    "landed": "landed",
    "collected": "landing",
    "unclear": "sending",
    "planned": "waiting",
    "held": "held",
    "overdue": "overdue",
    "abandoned": "given up",
    "dropped": "not sent",
}
# by the providers' words: https://platform.claude.com/docs/en/api/retrieving-message-batches,
# https://platform.openai.com/docs/guides/batch
_STATUSES = {
    "in_progress": "running",
    "canceling": "being cancelled",
    "ended": "ended",
    "validating": "being checked",
    "finalizing": "finishing",
    "cancelling": "being cancelled",
    "completed": "ended",
    "failed": "ended",
    "expired": "ended",
    "cancelled": "ended",
}
_STYLES = {
    "landed": "green",
    "landing": "green",
    "held": "red",
    "overdue": "red",
    "being cancelled": "yellow",
    "waiting": "dim",
    "not sent": "dim",
}
_STOPS = {
    "cancel": "it was cancelled",
    "time_limit": "its time limit is reached",
    "over_bound": "an answer was above its upper bound",
    "sent_twice": "the provider accepted a batch twice",
    "shutdown": "its program asked for it",
}
# columns of the table that shrink in a narrow terminal, in this order, and their least widths; with
# 0 they are dropped
_SHRINKING = (
    ("batch id", 16),
    ("batch id", 0),
    ("provider", 0),
    ("model", 14),
    ("model", 0),
    ("requests", 0),
    ("sent", 0),
    ("done", 0),
    ("batch", 0),
)
_RANKS = {"landed": -1, "waiting": 1, "not sent": 2}
_LABEL = 10  # columns of the labels at the left
_BAR = 40  # columns of a bar, at most
_LEAST_BAR = 6
_FAILURES = 5  # lines of errors, at most
_GAP = 2  # columns between those of the table
_WIDE = 1000
_AIRY = 10  # with more free lines than this, one is left empty above the table


def run_lines(
    stats: Mapping[str, Any], elapsed: float, batches: Batches, size: tuple[int, int], now: float
) -> list[Text]:
    """Return a run's lines for a terminal of `size` (columns, rows).

    `stats` and `batches` are those of progress callbacks; `elapsed` is in seconds, `now` in seconds
    since 1970. The more important lines come first: the others are dropped if there is no room.
    """
    width, height = size
    head = summary(stats, elapsed, batches, width, now)
    room = max(height - len(head), 0)
    failures = failed(stats, room // 3)
    room -= len(failures)
    gap = [Text()] if room > _AIRY else []
    table = _table([one for one in batches if one["state"] in OPEN], width, room - len(gap), now)
    return [*head, *failures, *(gap if table else []), *table]


def summary(
    stats: Mapping[str, Any], elapsed: float, batches: Batches, width: int, now: float
) -> list[Text]:
    """Return the lines about the run as a whole."""
    if not stats.get("total") and not batches and not stats.get("landed"):
        doing = printable(stats.get("doing") or "planning")
        return [_line("Time", [Text(clock(elapsed)), Text(doing)], width)]
    limit = stats["cost_limit_usd"]
    work, money = _requests(stats, batches), _money(stats)
    room = _bar_width([work, money] if limit is not None else [work], width)
    work_bar = _bar(stats["landed"], _ahead(batches), stats["total"], room)
    money_bar = None
    if limit is not None:
        money_bar = _bar(stats["cost_usd"] or 0, stats["reserved_usd"], limit, room)
    lines = [_line("Requests", work, width, work_bar)]
    if stats["outcomes"]:
        lines.append(_line("Outcomes", _outcomes(stats, width), width))
    lines.append(_line("Batches", _batches(batches, width), width))
    lines.append(_line("Cost", money, width, money_bar))
    lines.append(_line("Time", _times(elapsed, batches, now, width), width))
    if stats["stopping"]:
        label, why = _stopping(stats, batches)
        lines.append(_line(label, [Text(why, style="yellow")], width))
    return lines


def _stopping(stats: Mapping[str, Any], batches: Batches) -> tuple[str, str]:
    """Return that a run is to stop, or has stopped, and why."""
    ends = any(one["state"] in (*OPEN, "planned") for one in batches)
    reason: str = stats["stopping"]
    why = printable(_STOPS.get(reason, reason.replace("_", " ")))
    return "Stopping" if ends else "Stopped", why


def sentence(stats: Mapping[str, Any], batches: Batches) -> str:
    """Return the state of a run as one line, for logs."""
    opened = sum(one["state"] in OPEN for one in batches)
    parts = [
        f"{stats['landed']:,} of {pluralize(stats['total'], 'request')} landed",
        *(text.plain for text in _outcomes(stats, _WIDE)),
        pluralize(opened, "open batch"),
        *(text.plain for text in _money(stats)),
    ]
    return ", ".join(parts)


def facts(stats: Mapping[str, Any], batches: Batches) -> list[tuple[str, str]]:
    """Return the state of a run as (label, value), for pages."""
    parts = {
        "Requests": _requests(stats, batches),
        "Outcomes": _outcomes(stats, _WIDE) or [Text("none yet")],
        "Batches": _batches(batches, _WIDE),
        "Cost": _money(stats),
    }
    lines = [(label, ", ".join(text.plain for text in texts)) for label, texts in parts.items()]
    if stats["stopping"]:
        lines.append(_stopping(stats, batches))
    errors: dict[str, int] = stats["errors"]
    return lines + [("Failed", f"{count:,} x {text}") for text, count in errors.items()]


def failed(stats: Mapping[str, Any], room: int) -> list[Text]:
    """Return why requests failed, the most frequent reasons first, in at most `room` lines."""
    errors: dict[str, int] = stats.get("errors") or {}
    most = sorted(errors.items(), key=lambda item: -item[1])[: min(room, _FAILURES)]
    labels = ["Failed", *[""] * len(most)]
    return [
        Text.assemble(label.ljust(_LABEL), (f"{count:,} x ", "red"), printable(text))
        for label, (text, count) in zip(labels, most, strict=False)
    ]


def _requests(stats: Mapping[str, Any], batches: Batches) -> list[Text]:
    ahead = _ahead(batches)
    parts = [f"{stats['landed']:,} of {stats['total']:,} landed"]
    if ahead:
        parts.append(f"{ahead:,} done at the provider")
    if stats["up_to_date"]:
        parts.append(f"{pluralize(stats['up_to_date'], 'row')} up to date")
    return list(map(Text, parts))


def _ahead(batches: Batches) -> int:
    """Return how many requests are done at the provider, but have not landed."""
    return sum(one["done"] or 0 for one in batches if one["state"] == "submitted")


def _outcomes(stats: Mapping[str, Any], width: int) -> list[Text]:
    counts = sorted(stats["outcomes"].items(), key=lambda item: (item[0] != "succeeded", -item[1]))
    parts = [
        Text(f"{count:,} {printable(name)}", style="green" if name == "succeeded" else "red")
        for name, count in counts
    ]
    if _length(parts) <= width - _LABEL:
        return parts
    return [
        Text(f"{stats['completed']:,} succeeded", style="green"),
        Text(f"{stats['failed']:,} failed", style="red"),
    ]


def _batches(batches: Batches, width: int) -> list[Text]:
    counts = Counter(state_of(one) for one in batches)
    ranked = sorted(counts, key=lambda word: _RANKS.get(word, 0))
    parts = [Text(f"{counts[word]:,} {word}", style=_STYLES.get(word, "cyan")) for word in ranked]
    if _length(parts) <= width - _LABEL:
        return parts or [Text("none")]
    opened = sum(one["state"] in OPEN for one in batches)
    return [
        Text(f"{opened:,} open", style="cyan"),
        *(part for part, word in zip(parts, ranked, strict=True) if word in _RANKS),
    ]


def _money(stats: Mapping[str, Any]) -> list[Text]:
    spent, limit = stats["cost_usd"], stats["cost_limit_usd"]
    if spent is None:
        return [Text("unknown: no price is known")]
    parts = [f"{_usd(spent)} spent" if limit is None else f"{_usd(spent)} of {_usd(limit)} spent"]
    if reserved := stats["reserved_usd"]:
        parts.append(f"{_usd(reserved)} reserved")
    if budget := stats.get("budget"):
        parts.append(f"budget {printable(budget)}")
    elif limit is None:
        parts.append("no limit")
    return list(map(Text, parts))


def _usd(amount: float) -> str:
    return dollars(pico_from_usd(amount))


def _times(elapsed: float, batches: Batches, now: float, width: int) -> list[Text]:
    parts = [Text(clock(elapsed))]
    deadlines = [one["ends_by"] for one in batches if one["state"] == "submitted"]
    deadlines = [deadline for deadline in deadlines if deadline is not None]
    if deadlines:
        seconds = min(deadlines) - now
        when = Text(f"deadline in {clock(seconds)}")
        if seconds < 0:
            when = Text(f"deadline {clock(-seconds)} ago", style="yellow")
        whole = Text("oldest batch's ").append_text(when)
        parts.append(whole if _length([*parts, whole]) <= width - _LABEL else when)
    return parts


def state_of(batch: Mapping[str, Any]) -> str:
    """Return a batch's state in plain words."""
    if batch["state"] != "submitted":
        return _STATES.get(batch["state"], printable(batch["state"]))
    status = batch["provider_status"] or "at the provider"
    return _STATUSES.get(status) or printable(status.replace("_", " "))


def _bar_width(lines: Sequence[Sequence[Text]], width: int) -> int:
    """Return the length of bars beside these parts; 0 if there is no room for any."""
    free = width - _LABEL - 2
    most = min(_BAR, (width - _LABEL) // 3, *(free - _length(parts) for parts in lines))
    least = _LEAST_BAR if all(parts[0].cell_len + _LEAST_BAR <= free for parts in lines) else 0
    return max(most, least)


def _length(parts: Sequence[Text]) -> int:
    return sum(part.cell_len + 2 for part in parts) - 2


def _bar(done: float, ahead: float, total: float, room: int) -> Text:
    """Return a bar: it is never empty once something is done, and full only at the end."""
    first = _cells(done, total, room)
    second = min(_cells(done + ahead, total, room), room) - first
    rest = room - first - second
    return Text.assemble(("━" * first, "green"), ("╍" * second, "cyan"), ("─" * rest, "dim"))


def _cells(part: float, total: float, room: int) -> int:
    if part <= 0 or room <= 0:
        return 0
    return room if part >= total else min(max(int(part / total * room), 1), room - 1)


def _line(label: str, parts: Iterable[Text], width: int, bar: Text | None = None) -> Text:
    """Return a label, a bar, the first part and as many others as fit."""
    line = Text(label.ljust(_LABEL))
    if bar:
        line.append_text(bar).append("  ")
    for place, part in enumerate(parts):
        if place and line.cell_len + 2 + part.cell_len > width:
            break
        line.append(", " if place else "").append_text(part)
    return line


def _table(batches: Batches, width: int, room: int, now: float) -> list[Text]:
    """Return a line for each open batch, as far as there is room, and the number of the others."""
    if not batches or room <= 0:
        return []
    if room < 3:  # noqa: PLR2004 - a head, a batch, and how many more there are
        return [Text(f"{pluralize(len(batches), 'open batch')}", style="dim")]
    ranked = sorted(
        batches,
        key=lambda one: (
            one["state"] not in ("held", "overdue"),
            one["number"] or float("inf"),
            one["chunk_id"],
        ),
    )
    shown = ranked if len(ranked) < room else ranked[: room - 2]
    cells = zip(*(_row(one, now) for one in shown), strict=True)
    columns = {name: column for name, column in zip(_COLUMNS, cells, strict=True) if any(column)}
    widths = _widths(columns, width)
    heads = (_cell(name, name, at).plain for name, at in widths.items())
    lines = [Text((" " * _GAP).join(heads), style="dim")]
    gap = Text(" " * _GAP)
    lines += [
        gap.join(_cell(name, columns[name][place], at) for name, at in widths.items())
        for place in range(len(shown))
    ]
    if hidden := len(ranked) - len(shown):
        more = pluralize(hidden, "more open batch", "more open batches")
        lines.append(Text(f"and {more}", style="dim"))
    return lines


def _row(batch: Mapping[str, Any], now: float) -> tuple[str, ...]:
    """Return a batch's cells, one for each of the columns."""
    sent = "" if batch["sent_at"] is None else f"{clock(max(now - batch['sent_at'], 0))} ago"
    done = "" if batch["done"] is None else f"{batch['done']:,}"
    number = "" if batch["number"] is None else f"{batch['number']:,}"
    provider, model = printable(batch["provider"]), printable(batch["model"])
    requests, batch_id = f"{batch['jobs']:,}", printable(batch["batch_id"] or "")
    return number, provider, model, requests, done, state_of(batch), sent, batch_id


def _widths(columns: Mapping[str, Sequence[str]], width: int) -> dict[str, int]:
    widths = {name: max(map(cell_len, (name, *cells))) for name, cells in columns.items()}
    for name, least in _SHRINKING:
        over = sum(widths.values()) + _GAP * (len(widths) - 1) - width
        if over > 0 and len(widths) > 1 and name in widths:
            widths[name] = max(least, min(widths[name] - over, widths[name])) if least else 0
            widths = {one: at for one, at in widths.items() if at}
    return widths


def _cell(name: str, text: str, width: int) -> Text:
    style = "dim" if name == "batch id" else ""
    if name == "state":
        style = _STYLES.get(text, "cyan")
    cell = Text(text, style=style)
    cell.truncate(width, overflow="ellipsis")
    if name in ("batch", "requests", "done", "sent"):
        cell.pad_left(width - cell.cell_len)
    else:
        cell.pad_right(width - cell.cell_len)
    return cell
