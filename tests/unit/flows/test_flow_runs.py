"""What the pause key of a suspended flow run says."""

from __future__ import annotations

from uuid import uuid4

from prefect.client.schemas.objects import FlowRun, State, StateType

from batchata_tasks.flows.flow_runs import Awaited, awaited_by, pause_key, suspended_for


def test_a_pause_key_names_the_run_and_counts_once() -> None:
    """Each wait of a flow run has a key of its own, by which others know what is awaited."""
    run, awaited = FlowRun(flow_id=uuid4(), run_count=1), Awaited("ledger", "run")
    run.state = State(type=StateType.RUNNING)
    first = pause_key(awaited, run)
    run.empirical_policy.pause_keys = {first, "somebody's own"}
    assert pause_key(awaited, run) != first
    assert awaited_by(run) == {awaited}
    assert suspended_for(run) is None
    run.state.state_details.pause_key = first
    assert suspended_for(run) == awaited
