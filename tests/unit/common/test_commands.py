"""Commands in sentences, which people copy: they name what the command was given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchata_tasks.common.commands import naming

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "SPEC: `batchata run SPEC --retry-failed`, or `batchata show SPEC`; SPEC stays."


def test_a_command_names_the_spec_as_a_shell_takes_it() -> None:
    """Only within commands; a path that a shell would split is in quotes."""
    assert naming(TEXT, "my specs/a.yaml") == (
        "SPEC: `batchata run 'my specs/a.yaml' --retry-failed`, or "
        "`batchata show 'my specs/a.yaml'`; SPEC stays."
    )
    assert naming(TEXT, None) == TEXT


def test_only_the_word_itself_is_replaced() -> None:
    """A folder may have the word in its name, and a file may begin with a dash."""
    text = "`batchata status 'a SPEC b'`, or `batchata run SPEC`"
    expected = "`batchata status 'a SPEC b'`, or `batchata run ./-x.yaml`"
    assert naming(text, "-x.yaml") == expected


@pytest.mark.parametrize("command", ["status", "show", "forget"])
def test_a_folder_is_named_by_commands_that_take_one(tmp_path: Path, command: str) -> None:
    """Others would refuse it, so that they go on to name a SPEC that nobody told."""
    text = f"`batchata {command} SPEC` and `batchata run SPEC`"
    assert naming(text, str(tmp_path)) == f"`batchata {command} {tmp_path}` and `batchata run SPEC`"
