"""Every kind of fault: where it strikes, and its effect there.

A kind's scope says what its rules can strike:

- `call`: HTTP calls, on the routes that the kind names unless the rule names one. The first rule
  that strikes a call wins.
- `answer`: what answers of success look like, on the same terms. All rules that strike an answer
  apply, in their order, also if a fault of scope `call` strikes the call.
- `batch`: batches at their creation. All rules that strike a batch apply to it, even if a fault
  strikes its create call, too.
- `line`: lines of an OpenAI input file, when the batch over it is validated.
- `request`: requests inside a batch, when they run. The first rule that strikes wins.
- `server`: the server as a whole, from the moment the rule is added.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

Scope: TypeAlias = Literal["call", "answer", "batch", "line", "request", "server"]

_CREATE = ("create",)
_PAID = ("create", "messages")
_SENDING = ("create", "upload")
_DOWNLOADS = ("results", "content")
_OBJECTS = ("create", "get", "list", "cancel")
_LISTS = ("list",)
_ANY: tuple[str, ...] = ()

_WORDS = "message, error_type, error_code"
_BODY = f"status, html, empty, body, retry_after, {_WORDS}"

ROUTES = (
    *("create", "get", "list", "cancel", "delete", "results", "messages", "count_tokens", "models"),
    *("upload", "list_files", "file", "delete_file", "content"),
)
"""The names of all routes; the last five are of OpenAI's files, `results` is Anthropic's."""


class Kind(NamedTuple):
    """A kind of fault."""

    scope: Scope
    does: str
    routes: tuple[str, ...] = _ANY
    """The routes that it strikes if the rule names none; empty for all."""
    settings: str = ""
    """The settings of a rule that this kind reads, besides those of its scope."""
    only: str | None = None
    """The provider that it strikes, if it exists there alone."""
    status: int = 500
    """The HTTP status of its answer if the rule names none."""


class Where(NamedTuple):
    """What the rules of a scope strike, and how they choose it."""

    strikes: str
    settings: str


SCOPES: dict[Scope, Where] = {
    "call": Where("calls", "provider, route, nth, count, probability, seed, larger_than"),
    "answer": Where("answers", "provider, route, nth, count, probability, seed, larger_than"),
    "batch": Where("batches", "provider, nth, count, probability, seed"),
    "line": Where("lines of an input file", "provider, contains, share, times, count, seed"),
    "request": Where("requests of a batch", "provider, contains, share, times, count, seed"),
    "server": Where("the whole server", "provider"),
}
"""Each scope in words, with the settings that all of its kinds read."""

STYLES: dict[str, str] = {
    "capitals": "statuses in capitals",
    "progress": "the same, and PROGRESS for IN_PROGRESS",
    "iso_times": "times as ISO texts",
    "ms_times": "times in milliseconds",
    "float_times": "times with fractions of seconds",
    "no_times": "no times",
    "null_times": "times that are null",
    "blank": 'errors and ids "" where there are none, null counts',
    "text_counts": "counts as text",
    "no_counts": "no counts",
    "low_counts": "counts of one of its requests alone",
    "no_metadata": "metadata that is null",
    "errors_list": "errors as a list of texts",
    "nonsense": "times, counts, metadata and errors of types that mean nothing",
    "unknown_status": "a status that nobody knows while it runs",
    "unknown_end": "a status that nobody knows, also after its end",
}
"""The styles of `odd_objects`."""

IDS: dict[str, str] = {
    "number": "a number",
    "long": "1,500 characters",
    "same": "the same for all batches",
}
"""The styles of `odd_id`."""

KINDS: dict[str, Kind] = {
    "http_429": Kind(
        "call", "A rate limit; `retry_after` adds the header.", _ANY, f"retry_after, {_WORDS}"
    ),
    "spend_cap": Kind("call", "A 429 that waiting does not end, without retry-after.", _PAID),
    "hard_limit": Kind("call", "The 400 of a spend limit that the customer has set.", _PAID),
    "http_error": Kind(
        "call",
        "Any `status` from 400 on; nothing takes effect. It is the API's JSON error, a page "
        "(`html`), nothing (`empty`), or the text `body`.",
        _ANY,
        _BODY,
    ),
    "http_error_after": Kind(
        "call",
        "The same, to a call that took effect; 408 unless `status` says otherwise.",
        _CREATE,
        _BODY,
        status=408,
    ),
    "html_413": Kind("call", "A proxy's page: the body is too large.", _SENDING),
    "http_500_before": Kind("call", "A 500; nothing was accepted.", _CREATE),
    "http_500_after": Kind("call", "A 500 to a call that took effect.", _CREATE),
    "drop_before": Kind("call", "No answer; nothing was accepted.", _CREATE),
    "drop_after": Kind("call", "No answer to a call that took effect.", _CREATE),
    "drop_mid_answer": Kind(
        "call",
        "The call takes effect; the connection breaks after half of its answer.",
        _CREATE,
    ),
    "garbled_answer": Kind(
        "call",
        "The call takes effect; its 200 is half of the JSON (or `gzip`: of what was packed), a "
        "page (`html`), nothing (`empty`), or the text `body`.",
        _CREATE,
        "html, empty, body, gzip",
        status=200,
    ),
    "redirect": Kind(
        "call",
        "The call takes effect; its answer leads to the batch, or (`status` 307, 308) to the same "
        "call once more.",
        _CREATE,
        "status",
        status=307,
    ),
    "accept_delay": Kind(
        "call", "No answer; the batch is created `seconds` later.", _CREATE, "seconds"
    ),
    "repeats_create": Kind(
        "call",
        "The call takes effect twice, as if a proxy repeated it; the second one is answered.",
        _CREATE,
    ),
    "file_not_ready": Kind(
        "call",
        "OpenAI's input file is not processed yet: a 400, or the 404 of a file not found (by "
        "`status`). Nothing is accepted.",
        _CREATE,
        _BODY,
        only="openai",
        status=400,
    ),
    "length_required": Kind(
        "call", "A 411 to calls without a Content-Length.", _SENDING, _BODY, status=411
    ),
    "cancel_conflict": Kind("call", "A 409; nothing is cancelled.", ("cancel",), _BODY, status=409),
    "forgets": Kind(
        "call", "Before the call, the server restarts and forgets its batches and files."
    ),
    "token_limit": Kind("call", "The batch fails for OpenAI's enqueued tokens.", _CREATE),
    "slow": Kind(
        "call", "The call takes effect only after `seconds`, then is answered.", _ANY, "seconds"
    ),
    # A client that gives up on `slow` cannot know the effect; that of `slow_after` is certain.
    "slow_after": Kind(
        "call", "The call takes effect and is answered `seconds` later.", _ANY, "seconds"
    ),
    "drip": Kind(
        "call",
        "The call takes effect; blanks come for `seconds`, one by one, before its answer.",
        _ANY,
        "seconds",
    ),
    "endless": Kind(
        "call",
        "The call takes effect; its answer comes again and again without an end, or compressed "
        "(`gzip`).",
        _ANY,
        "gzip",
    ),
    "not_found": Kind(
        "call",
        "A 404 for an object that exists: a batch, or with `route` results, content (OpenAI's "
        "results) or file.",
        ("get",),
    ),
    "cut_download": Kind(
        "call",
        "A download breaks after `after_bytes`, or (`clean`) ends there as if that were all, or a "
        "part (`status` 206).",
        _DOWNLOADS,
        "after_bytes, clean, status",
    ),
    "bare_create": Kind(
        "answer", "A new batch has its id, its status and what was sent, nothing else.", _CREATE
    ),
    "create_names_job": Kind(
        "answer", "The answer to a create has an id that is not the batch's.", _CREATE
    ),
    "list_flat": Kind(
        "answer",
        "A list is one page of all objects, without has_more and ids; parameters are ignored.",
        _LISTS,
    ),
    "list_empty": Kind("answer", "A list is always empty.", _LISTS),
    "list_repeats": Kind("answer", "A list is its first page again and again.", _LISTS),
    "list_old_first": Kind("answer", "A list begins with the oldest.", _LISTS),
    "list_short": Kind(
        "answer", "A list has one batch a page, and says as a text whether more follow.", _LISTS
    ),
    "list_endless": Kind(
        "answer",
        "Each page of a list has the oldest batch, and an older one that nobody knows.",
        _LISTS,
    ),
    "odd_objects": Kind(
        "answer",
        "Batches of another `style`, of those that follow; `word` is the unknown status.",
        _OBJECTS,
        "style, word",
    ),
    "batch_expires": Kind(
        "batch", "It expires at its end; `share` of its requests ran.", _CREATE, "share"
    ),
    "batch_cancelled": Kind(
        "batch",
        "Somebody else cancels it at its end; `share` of its requests ran.",
        _CREATE,
        "share",
    ),
    "never_ends": Kind(
        "batch",
        "It stops after `share` of its requests and never ends unless cancelled.",
        _CREATE,
        "share",
    ),
    "stuck_finalizing": Kind(
        "batch",
        "All its requests run, and it never ends: OpenAI's stays finalizing, Anthropic's "
        "in_progress. A cancel changes nothing.",
        _CREATE,
    ),
    "cancel_ignored": Kind(
        "batch", "Once cancelled, it stays cancelling (Anthropic: canceling) for good.", _CREATE
    ),
    "late_files": Kind(
        "batch",
        "OpenAI names its files (`file`: output or error; else both) `seconds` after it ended, or "
        "after `reads` further reads of it.",
        _CREATE,
        "seconds, reads, file",
        only="openai",
    ),
    "false_end": Kind(
        "batch",
        "Its first `reads` reads (one unless set) say that it has ended, without counts and files; "
        "OpenAI's that it failed, for the reason `message` if set.",
        _CREATE,
        "reads, message",
    ),
    "end_taken_back": Kind(
        "batch",
        "Once its end was read, `reads` further reads (one unless set) say that it is in progress.",
        _CREATE,
        "reads",
    ),
    "fails_billed": Kind(
        "batch",
        "All its requests run, then OpenAI says that it failed, for the reason `message` if set. "
        "It names no files.",
        _CREATE,
        "message",
        only="openai",
    ),
    "list_lag": Kind("batch", "Lists leave it out for `seconds`.", _CREATE, "seconds"),
    "odd_id": Kind(
        "batch", "Its id is of another `style`, of those that follow.", _CREATE, "style"
    ),
    "request_invalid_line": Kind("line", "The line fails the validation of its whole batch."),
    "request_error": Kind("request", "An error of the provider."),
    "request_invalid": Kind("request", "An error of the request."),
    "request_expired": Kind("request", "It never ran: the batch expired first."),
    "request_refusal": Kind("request", "The model refuses; that is billed."),
    "request_filtered": Kind(
        "request", "OpenAI's content filter stops the answer; that is billed."
    ),
    "request_failed": Kind("request", "An OpenAI response whose own status is `failed`."),
    "request_truncated": Kind("request", "The answer stops at its cap."),
    "request_invalid_answer": Kind("request", "The answer does not satisfy its schema."),
    "request_other_case": Kind(
        "request", "Values of enums come in capitals, which no provider rules out."
    ),
    "request_misread": Kind(
        "request", "An answer that quotes has the first two digits of fractions exchanged."
    ),
    "request_other_page": Kind("request", "An answer that quotes names the page after each."),
    "request_dear": Kind(
        "request", "Far more tokens are billed than its bytes and its cap allow for."
    ),
    "request_separators": Kind("request", "The answer holds raw U+2028, U+2029 and U+0085."),
    "request_missing": Kind("request", "No line, although the counts say that it succeeded."),
    "request_duplicated": Kind("request", "The same line twice."),
    "request_error_first": Kind("request", "Two lines: an error, then the answer."),
    "request_error_last": Kind("request", "Two lines: the answer, then an error."),
    "request_unknown_id": Kind("request", "A further line, of a request that nobody sent."),
    "request_unknown_type": Kind("request", "A line that says neither success nor failure."),
    "request_broken_line": Kind("request", "A line that is not JSON."),
    "request_bom": Kind("request", "The line begins with a byte order mark."),
    "request_nan": Kind("request", "A field of the line that nobody reads is NaN."),
    "request_half_pair": Kind("request", "The answer's text holds half a surrogate pair."),
    "request_cut_character": Kind("request", "A character of the answer's text is cut: no UTF-8."),
    "request_no_usage": Kind("request", "The answer states no usage; it is billed."),
    "request_float_usage": Kind("request", "The usage is stated in floats."),
    "request_text_usage": Kind("request", "The usage is stated in texts."),
    "request_absurd_usage": Kind(
        "request", "The answer states 10¹¹ searches (OpenAI: output tokens); few are billed."
    ),
    "request_iterations": Kind(
        "request", "Anthropic bills a compaction that only `usage.iterations` states."
    ),
    "request_empty": Kind("request", "The answer's text is empty; that is billed."),
    "request_blank": Kind("request", "The answer's text is blank; that is billed."),
    "request_parts": Kind(
        "request", "An OpenAI chat answer is a list of parts, one of Anthropic's a text."
    ),
    "request_search_first": Kind(
        "request", "An answer of Anthropic begins with other words and a web search."
    ),
    "request_eos": Kind("request", "The reason for the end of the answer is `eos`."),
    "request_max_tokens": Kind(
        "request", "The answer stops at its cap; the reason for its end is `MAX_TOKENS`."
    ),
    "request_no_answer": Kind(
        "request", "The line holds the request instead of an answer, which is billed."
    ),
    "request_body_text": Kind("request", "The body of OpenAI's line is a JSON text."),
    "request_lost": Kind("request", "OpenAI lost the request: status 0, and an empty body."),
    "request_plain_error": Kind("request", "An error told as a text (`message`), without a code."),
    "request_error_beside": Kind(
        "request", "OpenAI's error (`message`) stands beside a response of status 400."
    ),
    "request_error_in_body": Kind(
        "request",
        "OpenAI's error (`message`, `error_code`) is the body of a response of status 200.",
    ),
    "request_no_credit": Kind(
        "request", "The account has no credit left; `error_type`, `error_code` and `message` apply."
    ),
    "request_no_permission": Kind(
        "request", "The account has no permission; `error_type`, `error_code` and `message` apply."
    ),
    "projects": Kind(
        "server",
        "Batches and files belong to the OpenAI-Organization and OpenAI-Project, the "
        "anthropic-workspace-id, or the value of the header named by `header`, that created "
        "them; to all others they do not exist.",
        _ANY,
        "header",
    ),
    "lists_unproven": Kind(
        "server",
        "Lists do not say that they show all batches (by a header), as most gateways' do not.",
    ),
    "max_tokens_only": Kind(
        "server",
        "OpenAI's max_completion_tokens is ignored; max_tokens is the cap, for all models.",
        only="openai",
    ),
}
"""Every kind of fault."""
