"""What fingerprints call a column that was renamed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchata_tasks.common.errors import StorageError
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.dataset.renames import Rename, Renames, in_order

if TYPE_CHECKING:
    from pathlib import Path


def renames(*pairs: str) -> Renames:
    return Renames(tuple(Rename(*pair.split("=")) for pair in pairs))


def test_a_column_keeps_the_name_that_it_had_first() -> None:
    """However often it was renamed, also back again, or in exchange with another one."""
    assert renames("a=b", "b=c").originals(["c"]) == {"c": "a"}
    assert renames("a=b", "b=a").originals(["a"]) == {"a": "a"}
    swapped = renames("a=aside", "b=a", "aside=b")
    assert swapped.originals(["a", "b", "other"]) == {"a": "b", "b": "a", "other": "other"}


def test_a_name_that_was_given_up_is_free() -> None:
    """A spec that has it again, and not the new one, asks what rows were asked first.

    Beside the first column, one that took its name is another input.
    """
    known = renames("a=b")
    assert known.originals(["a"]) == {"a": "a"}
    both = known.originals(["a", "b"])
    assert both["b"] == "a"
    assert both["a"] not in ("a", "b")
    later = renames("a=b", "a=c")
    assert later.originals(["c", "b"]) == {"b": "a", "c": both["a"]}
    assert later.originals(["c"]) == {"c": "a"}


def test_names_of_an_earlier_spec_lead_to_those_of_today() -> None:
    """Only renames after it count."""
    known = renames("a=b", "b=c")
    assert known.today(["a", "x"], 0) == ["c", "x"]
    assert known.today(["b", "x"], 1) == ["c", "x"]
    assert known.today(["c", "x"], 2) == ["c", "x"]


def test_the_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    """A damaged one is told, never taken for none: all rows would be sent again."""
    folder = DatasetFolder(str(tmp_path))
    folder.create()
    assert Renames.read(folder) == Renames()
    known = Renames((Rename("a", "b", {"new": "old"}),), begun=1)
    known.write(folder)
    assert Renames.read(folder) == known
    assert Renames.from_json(known.to_json()).all == known.all
    assert (known.original_prompt("new"), known.original_prompt("x")) == ("old", "x")
    folder.renames.write_text('{"renames": [{"from": "a"}]}')
    with pytest.raises(StorageError, match="is damaged"):
        Renames.read(folder)


def test_columns_are_renamed_in_an_order_that_keeps_each_name_free() -> None:
    """A chain begins at its end; of a circle, one column is put aside, under a name of its own."""
    chain = in_order({"a": "b", "b": "c"}, ["a", "b"])
    assert [(one.old, one.new) for one in chain] == [("b", "c"), ("a", "b")]
    circle = in_order({"a": "b", "b": "a"}, ["a", "b", "a_"])
    assert [(one.old, one.new) for one in circle] == [("a", "a__"), ("b", "a"), ("a__", "b")]
    assert Renames(tuple(circle)).originals(["a", "b"]) == {"a": "b", "b": "a"}


def test_a_file_takes_at_once_what_shows_whether_it_was_done() -> None:
    """No name comes twice in a step, so that an old name in a file tells."""
    apart = renames("before=x", "a=b", "c=d")
    assert Renames(apart.all, begun=2).next_step() == {"a": "b", "c": "d"}
    assert Renames(apart.all, begun=1).next_step() == {"c": "d"}
    assert apart.next_step() == {}
    swapped = renames("a=aside", "b=a", "aside=b")
    assert Renames(swapped.all, begun=3).next_step() == {"a": "aside"}
    assert Renames(swapped.all, begun=2).next_step() == {"b": "a"}
