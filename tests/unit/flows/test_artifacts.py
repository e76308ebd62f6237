"""What runs leave in Prefect's user interface can be read there."""

from __future__ import annotations

from batchata_tasks.flows.artifacts import markdown

LONG = (
    "a row costs $0.000013 (`max_cost_per_row_usd` allows $0.000000001); 35 rows were not sent. "
    * 2
)


def test_long_values_are_paragraphs() -> None:
    """The interface wraps no cell of a table, and cuts what is longer than the table is wide."""
    page = markdown("tickets", [("Result", "pilot failed"), ("Reason", LONG), ("Kept", "a | b")])
    assert page == (
        f"# tickets\n\n**Reason**: {LONG}\n\n"
        "| | |\n|---|---|\n| Result | pilot failed |\n| Kept | a \\| b |\n"
    )
    assert markdown("tickets", [("Reason", LONG)]) == f"# tickets\n\n**Reason**: {LONG}\n\n"


def test_a_value_stays_one_paragraph() -> None:
    """Foreign text begins no list, heading or table of its own."""
    assert "\n# x" not in markdown("tickets", [("Reason", f"{LONG}\n\n# x")])
