"""Errors about names say what to write instead."""

from __future__ import annotations

import pytest

from batchata_tasks.common.errors import SpecError
from batchata_tasks.planning.hints import nearest, quoted_column
from batchata_tasks.planning.templates import RowCondition, RowTemplate

COLUMNS = ["id", "customer name", "name", "order-id", "price (€)", "2024 sales", "7", 'a "b"']


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("{{ customer name }}", 'row["customer name"]'),
        ("{% if customer name %}x{% endif %}", 'row["customer name"]'),
        ("a\n{{ name }}: {{ 2024 sales }}", 'row["2024 sales"]'),
        ("{{ price (€) }}", 'row["price (€)"]'),
        ("{{ order-id }}", 'row["order-id"]'),
        ('{{ a "b" }}', "row['a \"b\"']"),
    ],
)
def test_a_column_that_is_no_name_is_shown_with_its_remedy(text: str, remedy: str) -> None:
    """A column with a blank or a hyphen is reached by `row["…"]`, and the error writes it so."""
    with pytest.raises(SpecError) as caught:
        RowTemplate("prompt", text, COLUMNS)
    assert str(caught.value).startswith("prompt: the template ")
    assert str(caught.value).endswith(f" write {remedy}.")


def test_a_condition_has_the_remedy_too() -> None:
    """In `where` as in templates."""
    with pytest.raises(SpecError, match=r"^where: .* write row\[\"customer name\"\]\.$"):
        RowCondition("customer name == 'x'", COLUMNS)


@pytest.mark.parametrize(
    "text", ['{{ row["customer name"] }} {{ }}', "customer name {{ id id }}", "{{ x[7] y }}", ""]
)
def test_no_remedy_for_what_is_right(text: str) -> None:
    """A column that is reached as it should be, or stands in the text, is not the reason."""
    assert quoted_column(text, COLUMNS) == ""


def test_the_nearest_name_is_proposed() -> None:
    """A misspelt name is shown beside those there are, whatever its case."""
    assert nearest("nmae", ["id", "name"]) == "; did you mean 'name'? It has: id, name"
    assert nearest("ID", ["id", "name"]) == "; did you mean 'id'? It has: id, name"
    assert nearest("zzz", ["id", "name"]) == "; it has: id, name"
    assert nearest("zzz", []) == "; it has none"
    assert nearest("zzz", [f"c{n}" for n in range(500)]).endswith("c99, …")
