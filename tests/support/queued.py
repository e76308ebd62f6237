"""What requests take up in the emulator's queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from batchata_tasks.emulator.answers.tokens import input_tokens
from batchata_tasks.planning.prepare import prepare
from batchata_tasks.pricing.price_file import CustomPrices
from batchata_tasks.providers import provider_type
from tests.support.built import request_of

if TYPE_CHECKING:
    from tests.support.table import Table


def per_row(table: Table) -> int:
    """Return the prompt tokens of a row."""
    spec, provider = table.spec(), provider_type(table.provider)()
    ready = prepare(
        spec,
        dict.fromkeys(spec.destinations(), provider),
        table.folder / "none",
        [],
        CustomPrices(),
    )
    body = request_of(ready.builder, {"id": "k0", "text": "text of row 0", "note": "n0"}).body
    return input_tokens(orjson.loads(body))
