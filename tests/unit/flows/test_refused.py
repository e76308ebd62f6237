"""What flow runs say to people names their spec, as commands do."""

from __future__ import annotations

import pickle

import pytest

from batchata_tasks.common.errors import SpecError
from batchata_tasks.flows.artifacts import markdown
from batchata_tasks.flows.refused import FailedRunError, failed, path_of, refused

RECEIPT = {"result": "pilot_failed", "cost_usd": "0.5"}
HINT = "output: see `batchata show SPEC`."


@pytest.mark.parametrize(("spec", "word"), [("a b.yaml", "'a b.yaml'"), ({"name": "x"}, "SPEC")])
def test_commands_name_the_path_of_the_spec(spec: object, word: str) -> None:
    """In the state's message and in artifacts; a spec that came by value has no path."""
    assert refused(SpecError(HINT), spec).message == HINT.replace("SPEC", word)
    assert HINT.replace("SPEC", word) in markdown("plan", [("Answers", HINT)], path_of(spec))


def test_a_failed_run_reaches_whoever_waits_in_another_process() -> None:
    """With its sentence and its receipt: Prefect keeps results as pickles, if it is told to."""
    state = failed("The pilot did not hold.", RECEIPT)
    error = pickle.loads(pickle.dumps(state.data))
    assert type(error) is FailedRunError
    assert (str(error), error.receipt) == (state.message, RECEIPT)
