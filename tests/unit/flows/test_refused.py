"""What flow runs say to people names their spec, as commands do."""

from __future__ import annotations

import pytest

from batchata_tasks.common.errors import SpecError
from batchata_tasks.flows.artifacts import markdown
from batchata_tasks.flows.refused import path_of, refused

HINT = "output: see `batchata show SPEC`."


@pytest.mark.parametrize(("spec", "word"), [("a b.yaml", "'a b.yaml'"), ({"name": "x"}, "SPEC")])
def test_commands_name_the_path_of_the_spec(spec: object, word: str) -> None:
    """In the state's message and in artifacts; a spec that came by value has no path."""
    assert refused(SpecError(HINT), spec).message == HINT.replace("SPEC", word)
    assert HINT.replace("SPEC", word) in markdown("plan", [("Answers", HINT)], path_of(spec))
