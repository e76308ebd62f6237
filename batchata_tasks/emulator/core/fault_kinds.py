"""Every kind of fault: where it strikes, and its effect there.

A kind's scope says what its rules can strike:

- `call`: HTTP calls, on the routes that the kind names unless the rule names one. The first rule
  that strikes a call wins.
- `batch`: batches at their creation. All rules that strike a batch apply to it, even if a fault
  strikes its create call, too.
- `line`: lines of an OpenAI input file, when the batch over it is validated.
- `request`: requests inside a batch, when they run. The first rule that strikes wins.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

Scope: TypeAlias = Literal["call", "batch", "line", "request"]

_CREATE = ("create",)
_PAID = ("create", "messages")
_SENDING = ("create", "upload")
_DOWNLOADS = ("results", "content")
_ANY: tuple[str, ...] = ()


class Kind(NamedTuple):
    """A kind of fault."""

    scope: Scope
    does: str
    routes: tuple[str, ...] = _ANY
    """The routes that it strikes if the rule names none; empty for all."""


KINDS: dict[str, Kind] = {
    "http_429": Kind("call", "A rate limit; `retry_after` adds the header."),
    "spend_cap": Kind("call", "A 429 that waiting does not end, without retry-after.", _PAID),
    "hard_limit": Kind("call", "The 400 of a spend limit that the customer has set.", _PAID),
    "http_error": Kind("call", "Any `status`, as JSON or (`html`) as a page."),
    "html_413": Kind("call", "A proxy's page: the body is too large.", _SENDING),
    "http_500_before": Kind("call", "A 500; nothing was accepted.", _CREATE),
    "http_500_after": Kind("call", "A 500 to a call that took effect.", _CREATE),
    "drop_before": Kind("call", "No answer; nothing was accepted.", _CREATE),
    "drop_after": Kind("call", "No answer to a call that took effect.", _CREATE),
    "accept_delay": Kind("call", "No answer; the batch is created `seconds` later.", _CREATE),
    "list_lag": Kind("call", "Lists leave the new batch out for `seconds`.", _CREATE),
    "token_limit": Kind("call", "The batch fails for OpenAI's enqueued tokens.", _CREATE),
    "slow": Kind("call", "The call takes effect only after `seconds`, then is answered."),
    # A client that gives up on `slow` cannot know the effect; that of `slow_after` is certain.
    "slow_after": Kind("call", "The call takes effect and is answered `seconds` later."),
    "not_found": Kind("call", "A 404 for an object that exists.", ("get",)),
    "cut_download": Kind("call", "A download ends after `after_bytes`.", _DOWNLOADS),
    "batch_expires": Kind("batch", "It expires at its end; `share` of its requests ran.", _CREATE),
    "batch_cancelled": Kind(
        "batch", "Somebody else cancels it at its end; `share` of its requests ran.", _CREATE
    ),
    "never_ends": Kind(
        "batch", "It stops after `share` of its requests and never ends unless cancelled.", _CREATE
    ),
    "late_files": Kind(
        "batch",
        "OpenAI names its files `seconds` after it ended, or after `reads` further reads of it.",
        _CREATE,
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
}
"""Every kind of fault."""
