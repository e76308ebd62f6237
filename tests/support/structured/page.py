"""The page on structured output.

python -m tests.support.structured.page            # writes docs/structured-output.md
"""

from __future__ import annotations

import json
import sys
from textwrap import indent

from tests.support.paths import ROOT
from tests.support.structured.cases import ACCEPTED, PREAMBLE, PROVIDERS, REFUSED, Case

PAGE = ROOT / "docs" / "structured-output.md"
COLUMNS = (
    "what",
    "in the class",
    "Anthropic gets",
    "OpenAI gets",
    "the column, or the sentence that refuses",
)


def head() -> str:
    """Return the page above its tables."""
    return f"""# Structured output

What becomes of each type in a `response_model`.
Written by `python -m tests.support.structured.page`, from tests/support/structured/cases.py,
which states by hand what should be sent. tests/stories/structured/test_structured_output.py
compares that with what the code makes of it, sends it to the emulated providers and looks at the
columns that land.

- Anthropic gets the schema as `output_config.format.schema`, OpenAI as
  `response_format.json_schema.schema` (`text.format.schema` at `/v1/responses`) with
  `strict: true`. It is the strict subset of both: each field is required, an optional one may be
  null, and no further fields are allowed. The tables show the schema of the field, or of the whole
  class.
- Constraints and formats that one of the two does not take go into the description, and are checked
  in the answer: an answer that breaks them is `invalid`, with the field in `_error`. Descriptions
  and docstrings reach both.
- The value of an enum or Literal may come in any case if that is unambiguous, and lands as the
  class spells it: "ELECTRONICS" is `electronics`. Strict modes do not promise the case.
- Under another model each answer that landed stays if the new field can hold it. What it cannot
  hold, and a field that is gone, is null or has no column from then on, and stays in `_response`
  alone: `plan` and `run` say how many. So it is in rows that are not sent again, too (`--limit`).
- `batchata revalidate SPEC` reads what the dataset keeps of each answer by today's model, and sends
  nothing: rows that were invalid and that a mended validator takes become valid, answers of another
  model that satisfy this one are kept, so that no run sends them again, and columns that a model
  between lacked are filled. What this model does not take is told and stays as it is. `plan` says
  how many rows it would keep; `--dry-run` tells all of it.
- A validator that became stricter changes no schema, so no row is sent again for it. `plan` and
  `run` tell that the code of the class has changed (the class and what it names in your own files,
  without comments and docstrings) until `batchata revalidate SPEC` has read the answers by it. With
  `--mark-invalid` the rows that it no longer takes become `invalid`, and these are sent again: by
  the next run, or by one with `--retry-failed` if their attempts are used up.
- Dates and times are asked for in ISO 8601. A number, also as a text such as "2024", is `invalid`,
  where Pydantic would read seconds since 1970.
- Maps are refused. Anthropic's own helper sends them as objects without fields, so that every
  answer is empty.
- What is refused is refused before anything is sent, by `batchata plan` too.
- Beyond these tables, OpenAI takes up to 5,000 fields (refused for both), enums of more than 250
  values only up to 15,000 characters, and 120,000 characters of names and enums; that is checked.
  Anthropic also refuses schemas that are too complex to compile, by a measure that it does not
  publish: try one row first (`--limit 1`).

A `response_schema` follows the same rules. In it,
`{{"type": "string", "format": "decimal", "maxDigits": 12, "decimalPlaces": 2}}` is an exact number,
and a field that is not required may be null. `definitions` (draft 7) are read like `$defs`.

The classes that the tables use:

{indent(PREAMBLE, "    ")}"""


def _code(text: str) -> str:
    """Return text as code that fits into a cell."""
    lines = [line for line in text.splitlines() if line.strip()]
    return "<br>".join(f"`{line.replace('    ', '  ')}`".replace("|", "\\|") for line in lines)


def _cut(text: str) -> str:
    return text if len(text) <= 400 else f"{text[:200]} … {text[-60:]}"


def _cells(case: Case) -> list[str]:
    outcomes = [case.outcome(provider) for provider in PROVIDERS]
    sent = [
        "nothing" if schema is None else _code(_cut(json.dumps(schema))) for schema, _ in outcomes
    ]
    if outcomes[0][0] is not None and outcomes[0] == outcomes[1]:
        sent[1] = "the same"
    ends = dict.fromkeys(
        _code(_cut(end)) if schema is not None else end.replace("|", "\\|")
        for schema, end in outcomes
    )
    return [case.what, _code(case.source), *sent, "<br>".join(ends)]


def _table(title: str, cases: tuple[Case, ...]) -> str:
    lines = [COLUMNS, ["---"] * len(COLUMNS), *map(_cells, cases)]
    return "\n".join([f"## {title}\n", *(f"| {' | '.join(cells)} |" for cells in lines)])


def page() -> str:
    """Return the whole page."""
    return f"{head()}\n{_table('Accepted', ACCEPTED)}\n\n{_table('Refused', REFUSED)}\n"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE.name}: {len(ACCEPTED)} accepted, {len(REFUSED)} refused\n")


if __name__ == "__main__":
    main()
