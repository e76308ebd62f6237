"""The form that Prefect makes of the parameters of `enrich`."""

from __future__ import annotations

from typing import Any

from prefect.utilities.callables import parameter_schema

from batchata_tasks.flows.enrich import enrich
from batchata_tasks.spec.enrichment import ORDER, EnrichmentSpec


def test_fields_come_in_the_order_of_the_readme_with_defaults_and_plain_texts() -> None:
    """Each field is described by a text that is no HTML, and has its default.

    The README's order is that of `ORDER`, see tests/stories/test_readme.py.
    """
    form = parameter_schema(enrich).model_dump(by_alias=True)
    definitions: dict[str, Any] = form["definitions"]
    fields: dict[str, dict[str, Any]] = definitions["EnrichmentSpec"]["properties"]
    assert list(fields) == list(ORDER)
    required = {name for name, field in EnrichmentSpec.model_fields.items() if field.is_required()}
    assert {name for name, field in fields.items() if "default" not in field} == required
    texts = [
        *(field["description"] for field in fields.values()),
        *(field["description"] for field in form["properties"].values()),
        *(
            field["description"]
            for definition in definitions.values()
            for field in definition["properties"].values()
        ),
    ]
    assert [text for text in texts if set("<>") & set(text)] == []
