"""Flow runs that are suspended until their batches end, and what resumes them.

A flow run is done by `prefect flow-run execute`, as a worker does it.
"""

from __future__ import annotations

import json
import signal
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from batchata_tasks.flows.automations import registered
from batchata_tasks.flows.flow_runs import PrefectFlowRuns
from batchata_tasks.ledger import opened_ledger
from batchata_tasks.operations.draft.files import automations_text
from tests.support.commands import batchata, start
from tests.support.jobs import sent
from tests.support.table import open_batches
from tests.support.team import Team
from tests.support.waiting import until

if TYPE_CHECKING:
    from batchata_tasks.emulator import Emulator
    from tests.support.prefect_server import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROWS = 400  # of the table that is shipped
# one batch, so that a run waits once
WHOLE = {"spec": "deployments/specs/package-topics.yaml", "overrides": {"pilot": False}}
# a flow run's process that is killed at the instant when a function is called, or has returned
DYING = """
import importlib, os, runpy
module = importlib.import_module({module!r})
real = getattr(module, {name!r})
def dying(*args, **options):
    if {after!r}:
        real(*args, **options)
    os.kill(os.getpid(), 9)
setattr(module, {name!r}, dying)
runpy.run_module({program!r}, run_name="__main__")
"""
PREFECTS = (  # what Prefect itself logs of a run
    "Running 1 deployment pull step",
    "Executing deployment step",
    "Deployment step",
    "All deployment steps",
    "Beginning flow run",
    "Finished in state Suspended(",
    "Finished in state Completed('400 succeeded')",
)
PROPOSE = ("batchata_tasks.flows.suspension", "propose_state_sync")


@pytest.fixture(scope="module")
def deployed(
    tmp_path_factory: pytest.TempPathFactory, server: Server, _one_emulator: Emulator
) -> Team:
    """Return a team that deployed what is shipped, in a work pool of its own: once for all tests.

    Deploying takes as long as a flow run.
    """
    team = Team(tmp_path_factory.mktemp("team"), server, _one_emulator, "watched")
    team.work_in(team.name)
    team.without_automations()
    team.prefect("work-pool", "create", team.name, "--type", "process")
    team.prefect("--no-prompt", "deploy", "--all")
    return team


@pytest.fixture
def team(deployed: Team, emulator: Emulator) -> Team:
    """Return the team with an empty ledger and no dataset: runs of other tests are none of it."""
    deployed.begin_anew()
    deployed.watch_every_minute()
    return deployed


def executed(team: Team, flow_run: str) -> dict[str, Any]:
    """Do a flow run as a worker does; return it as the server has it then."""
    return team.execute(flow_run)[0]


def killed(team: Team, flow_run: str, module: str, name: str, *, after: bool = False) -> None:
    """Do a flow run in a process that is killed at an instant; nobody tells the server."""
    script = DYING.format(module=module, name=name, after=after, program="prefect.engine")
    env = {**team.env, "PREFECT__FLOW_RUN_ID": flow_run}
    assert start("-c", script, cwd=team.folder, env=env).wait().returncode == -9


def set_state(
    team: Team, flow_run: str, kind: str, name: str | None = None, *, force: bool = False
) -> None:
    state = {"type": kind, **({"name": name} if name else {})}
    team.server.ask(f"flow_runs/{flow_run}/set_state", {"state": state, "force": force})


def started_again(team: Team, flow_run: str) -> dict[str, Any]:
    """Do what a worker and the automations do for a process that died; do the flow run again."""
    set_state(team, flow_run, "CRASHED", force=True)
    set_state(team, flow_run, "SCHEDULED", "AwaitingRetry")
    return executed(team, flow_run)


def landed_once(team: Team, emulator: Emulator) -> bool:
    rows = pq.read_table(team.ledger.output / "data").num_rows
    return rows == sent(emulator) == ROWS


def watched(team: Team, *words: str) -> dict[str, Any]:
    """Look once at all that is open; return what was seen and done."""
    done = batchata("watch", "--once", "--json", *words, cwd=team.folder, env=team.env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def status(team: Team) -> str:
    done = batchata("status", WHOLE["spec"], cwd=team.folder, env={**team.env, "COLUMNS": "250"})
    assert done.returncode == 0, done.stderr
    return done.stdout


def events(team: Team, name: str) -> list[dict[str, Any]]:
    wanted = {"filter": {"event": {"name": [name]}}, "limit": 50}
    return team.server.ask("events/filter", wanted)["events"]


def events_of(team: Team, run: dict[str, Any], name: str) -> list[dict[str, Any]]:
    resource = f"prefect.flow-run.{run['id']}"
    return [one for one in events(team, name) if one["resource"]["prefect.resource.id"] == resource]


def test_a_suspended_run_is_resumed_once_its_batches_ended(team: Team, emulator: Emulator) -> None:
    """It has no process while it waits, says for what, and is completed: each row is paid once.

    That is no run that carries on a dead one. A minute in which nothing ended resumes nothing.
    """
    carried_on = events(team, "batchata.run-carried-on")
    with open_batches(emulator):
        run = executed(team, team.begin())
        assert (run["state_type"], run["state_name"]) == ("PAUSED", "Suspended")
        assert run["state"]["message"].startswith("waiting for 1 of 1 batch, the oldest sent 20")
        told = until(lambda: events_of(team, run, "batchata.run-suspended"))
        assert told[0]["payload"] == {"message": run["state"]["message"]}
        related = {one["prefect.resource.id"] for one in told[0]["related"]}
        assert "prefect.tag.batchata-enrich" in related  # by which automations select it
        assert watched(team)["resumed"] == []
    assert watched(team)["resumed"] == [run["id"]]
    run = executed(team, run["id"])
    assert (run["state_name"], run["run_count"]) == ("Completed", 1)
    assert "400 succeeded" in run["state"]["message"]
    assert "carried on" not in run["state"]["message"]
    assert events(team, "batchata.run-carried-on") == carried_on
    assert len(until(lambda: events_of(team, run, "batchata.run-ended"))) == 1
    assert pq.read_table(team.ledger.output / "data").num_rows == sent(emulator) == ROWS
    idle = watched(team)
    assert (idle["batches"], idle["calls"]) == (0, 0)


def test_a_run_that_began_before_anybody_watched_is_suspended_once_somebody_does(
    deployed: Team, emulator: Emulator
) -> None:
    """The first pass of `watch` may come after it: it waits in its process, and looks again."""
    deployed.begin_anew()
    with open_batches(emulator):
        run = deployed.begin(**WHOLE)
        words = ("-m", "prefect", "flow-run", "execute", run)
        with start(*words, cwd=deployed.folder, env=deployed.env) as process:
            until(lambda: "no scheduled pass of `watch`" in deployed.log({"id": run}))
            deployed.watch_every_minute()
            process.wait()
        assert deployed.server.get(f"flow_runs/{run}")["state_name"] == "Suspended"
    assert watched(deployed)["resumed"] == [run]
    assert executed(deployed, run)["state_name"] == "Completed"
    assert landed_once(deployed, emulator)


def test_a_cancel_is_carried_out_by_whoever_comes_first(team: Team, emulator: Emulator) -> None:
    """A run of the same spec may begin before the next pass of `watch`: it lets nothing go on."""
    with open_batches(emulator):
        cancelled = executed(team, team.begin(**WHOLE))
        set_state(team, cancelled["id"], "CANCELLED", force=True)
        run = executed(team, team.begin(**WHOLE))
    assert run["state_name"] == "BatchesCancelled"
    assert sent(emulator) == ROWS
    assert executed(team, team.begin(**WHOLE))["state_name"] == "Completed"
    assert pq.read_table(team.ledger.output / "data").num_rows == ROWS


def test_a_run_that_completed_is_not_done_again_for_a_crash_that_was_told_late(
    team: Team, emulator: Emulator
) -> None:
    """Prefect may hold the event of a crash back until the run was carried on, and has ended."""
    run = executed(team, team.begin(**WHOLE))
    message = "It crashed; it is started again and carries on."
    state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": message}
    team.server.ask(f"flow_runs/{run['id']}/set_state", {"state": state})
    emulator.control.faults(kind="http_error", status=500)
    again = executed(team, run["id"])
    assert (again["state_name"], again["state"]["message"]) == ("Completed", "400 succeeded")
    assert landed_once(team, emulator)


def test_a_suspended_run_waits_no_longer_than_a_week(team: Team, emulator: Emulator) -> None:
    """If nobody ever resumes it, the server ends it as Failed, so that somebody hears of it."""
    with open_batches(emulator):
        state = executed(team, team.begin())["state"]
    begun, end = state["timestamp"], state["state_details"]["pause_timeout"]
    waits = datetime.fromisoformat(end) - datetime.fromisoformat(begun)
    assert timedelta(days=6, hours=23) < waits <= timedelta(days=7)


def test_a_suspended_run_shows_how_its_batches_are(team: Team, emulator: Emulator) -> None:
    """The page of a run that has no process is brought up to date by whoever looks at its batches.

    So is the bar, and both tell the end once the run has ended: they are the same artifacts.
    """
    in_halves = {**WHOLE, "overrides": {"pilot": False, "items_per_batch": 200}}
    with open_batches(emulator):
        run = executed(team, team.begin(**in_halves))
        emulator.control.finish(emulator.control.ledger()["anthropic"]["batches"][0]["id"])
        before = shown(team, run)
        assert "| Batches | 2 running |" in before["markdown"]["data"]
        assert watched(team)["resumed"] == []
        status = shown(team, run)["markdown"]["data"]
        # either was sent first
        assert "| 1 ended, 1 running |" in status or "| 1 running, 1 ended |" in status
    assert watched(team)["resumed"] == [run["id"]]
    executed(team, run["id"])
    after = shown(team, run)
    assert after["progress"]["data"] == 100
    assert "| Batches | 2 landed |" in after["markdown"]["data"]
    assert {one["id"] for one in before.values()} == {one["id"] for one in after.values()}


def shown(team: Team, run: dict[str, Any]) -> dict[str, Any]:
    """Return what shows how a flow run stands, by its type."""
    found = artifacts(team, run, f"progress-{team.name}", f"status-{team.name}")
    assert len(found) == 2
    return {one["type"]: one for one in found}


def artifacts(team: Team, run: dict[str, Any], *keys: str) -> list[dict[str, Any]]:
    wanted = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}, "key": {"any_": list(keys)}}}
    return team.server.ask("artifacts/filter", wanted)


def test_a_log_tells_the_story_in_order(team: Team, emulator: Emulator) -> None:
    """From the plan to the receipt, across two processes, and no line without news.

    The flow run is named as its spec, though its parameter is a path.
    """
    with open_batches(emulator):
        run = executed(team, team.begin(**WHOLE))
    assert run["name"] == f"enrich {team.name}"
    assert watched(team)["resumed"] == [run["id"]]
    executed(team, run["id"])
    lines = until(lambda: told(team, run, "receipt: "), every=0.3)
    ours = [line for line in lines if not line.startswith(PREFECTS)]
    waiting = run["state"]["message"]
    assert [line for line in ours if "about to send" not in line and "planning" not in line] == [
        "planned: 400 requests in 1 batch, 0 rows up to date",
        "batch 1 (400 rows): sending",
        "batch 1 (400 rows): at the provider",
        f"{waiting}: this run is suspended until `watch` resumes it.",
        "going on with 400 requests: 1 batch sent before.",
        "batch 1 (400 rows): at the provider",
        "batch 1 (400 rows): landing",
        "batch 1 (400 rows): landed",
        next(line for line in ours if line.startswith("receipt: succeeded: 400 succeeded; cost: ")),
    ]


def told(team: Team, run: dict[str, Any], last: str) -> list[str]:
    """Return the lines of a run's log once one of them begins with `last`."""
    lines = team.log(run).splitlines()
    return lines if any(line.startswith(last) for line in lines) else []


def test_an_overlapping_run_leaves_all_to_the_one_that_waits(
    team: Team, emulator: Emulator
) -> None:
    """A run that is asked for the same as one that is suspended names it, and does nothing itself.

    It lands nothing, though a batch has ended, and sends nothing, though there is room for another.
    """
    overrides = {"pilot": False, "items_per_batch": 200, "max_parallel_batches": 1}
    asked = {"spec": WHOLE["spec"], "overrides": overrides}
    with open_batches(emulator):
        first = executed(team, team.begin(**asked))
        emulator.control.finish(emulator.control.ledger()["anthropic"]["batches"][0]["id"])
        second = executed(team, team.begin(**asked))
        assert (first["state_name"], second["state_name"]) == ("Suspended", "AlreadyRunning")
        assert second["state"]["message"].startswith("nothing was sent: flow run ")
        assert first["id"] in second["state"]["message"]
        assert sent(emulator) == ROWS // 2
        assert not list((team.ledger.output / "data").glob("*.parquet"))
    assert watched(team)["resumed"] == [first["id"]]
    assert executed(team, first["id"])["state_name"] == "Completed"
    assert landed_once(team, emulator)


def test_a_run_that_begins_warns_that_nobody_resumes_others(team: Team, emulator: Emulator) -> None:
    """`watch` was paused after a run was suspended: the next one says so, and lands what was sent.

    Its page, and an event for automations, name the run that waits.
    """
    with open_batches(emulator):
        first = executed(team, team.begin(**WHOLE))
    until(lambda: events_of_ledger(team, "batchata.watch-awaited"))
    team.watch_no_more()
    run = executed(team, team.begin(**WHOLE))
    assert run["state_name"] == "Completed"
    warned = f"nobody resumes 1 flow run that is suspended ({first['id']}): `watch` last looked "
    (line,) = until(lambda: [line for line in lines_of(team, run, 30) if warned in line])
    (event,) = until(lambda: events_of_ledger(team, "batchata.unwatched"))
    assert event["payload"] == {"message": line, "waiting": [first["id"]]}
    assert run["id"] in str(event["related"])
    assert landed_once(team, emulator)
    watched(team)
    assert executed(team, first["id"])["state_name"] == "Completed"
    assert landed_once(team, emulator)


def lines_of(team: Team, run: dict[str, Any], level: int) -> list[str]:
    wanted = {"logs": {"flow_run_id": {"any_": [run["id"]]}, "level": {"ge_": level}}}
    return [line["message"] for line in team.server.ask("logs/filter", wanted)]


def events_of_ledger(team: Team, name: str) -> list[dict[str, Any]]:
    ((ledger,),) = team.ledger.ask_ledger("SELECT ledger_id FROM meta")
    resource = f"batchata.ledger.{ledger.lower()}"
    return [one for one in events(team, name) if one["resource"]["prefect.resource.id"] == resource]


def test_an_automation_fires_once_watch_comes_no_more(team: Team) -> None:
    """As long as runs wait for it: of a ledger for which none does, nobody misses it."""
    wanted = yaml.safe_load(automations_text())["automations"]
    (ours,) = [one for one in wanted if one["name"] == "tell-that-nobody-watches"]
    assert ours["trigger"]["within"] == 600
    ours["trigger"]["within"] = 10
    passes = PrefectFlowRuns(repeated=True)
    with temporary_settings({PREFECT_API_URL: team.server.url}):
        registered(yaml.safe_dump({"automations": [ours]}), "shorter.yaml")
        for waiting in (1, 2):
            for ledger in ("waited-for", "idle"):
                passes.leave_sign(ledger, (), waiting)
        passes.leave_sign("idle", (), 0)
    fired = until(lambda: events(team, "prefect.automation.triggered"), every=1)
    labels = [event["payload"]["triggering_labels"]["prefect.resource.id"] for event in fired]
    assert labels == ["batchata.ledger.waited-for"]


@pytest.mark.nights
def test_an_overlapping_run_does_the_whole_if_nobody_watched(
    team: Team, emulator: Emulator
) -> None:
    """Once somebody does, both are suspended, and resumed in turn; each row is paid once."""
    with open_batches(emulator):
        first = executed(team, team.begin(**WHOLE))["id"]
        team.watch_no_more()
        second = team.begin(**WHOLE)
        words = ("-m", "prefect", "flow-run", "execute", second)
        with start(*words, cwd=team.folder, env=team.env) as process:
            until(lambda: "`watch` last looked" in team.log({"id": second}))
            team.watch_every_minute()
            process.wait()
        assert team.server.get(f"flow_runs/{second}")["state_name"] == "Suspended"
    for waits in (first, second):
        assert watched(team)["resumed"] == [waits]
        assert executed(team, waits)["state_name"] == "Completed"
    assert landed_once(team, emulator)


def test_a_suspended_run_that_is_cancelled_is_cancelled_at_the_provider(
    team: Team, emulator: Emulator
) -> None:
    """Prefect runs no hook then: `watch` cancels the batch, lands what ran, and ends the run."""
    emulator.control.progress("seconds", 3600)
    run = executed(team, team.begin(**WHOLE))
    set_state(team, run["id"], "CANCELLING")
    assert team.server.get(f"flow_runs/{run['id']}")["state_name"] == "Cancelled"
    assert len(watched(team)["cancelled"]) == 1
    (batch,) = emulator.control.ledger()["anthropic"]["batches"]
    assert batch["status"] in ("canceling", "ended")
    emulator.control.progress("immediate")
    watched(team)
    assert watched(team)["batches"] == 0
    results = team.ledger.ask_ledger("SELECT result FROM runs WHERE id IN {runs}")
    assert results == [("cancelled",)]
    assert pq.read_table(team.ledger.output / "data").num_rows == ROWS


def test_a_cancel_that_reaches_nobody_is_told(team: Team, emulator: Emulator) -> None:
    """`status` knows from the server, says what goes on, and names the command that ends it."""
    emulator.control.progress("seconds", 3600)
    run = executed(team, team.begin(**WHOLE))
    assert "to be cancelled" not in status(team)
    set_state(team, run["id"], "CANCELLING")
    shown = status(team)
    assert "waiting, to be cancelled" in shown
    assert (
        "its flow run was cancelled on Prefect's server: 1 batch goes on at the provider, and "
        "what it does is paid for. Nobody watches: `batchata watch --once` cancels it, and lands "
        "what ran." in shown
    )
    assert "let go of it" not in shown
    watched(team)
    assert "a cancel was asked for" in status(team)


def test_a_run_of_a_deployment_that_was_killed_is_started_as_such(
    team: Team, emulator: Emulator
) -> None:
    """`status` names no command that nobody gave: the deployment's, or `watch` if it looks."""
    flow_run = team.begin(**WHOLE)
    with open_batches(emulator):
        killed(team, flow_run, "batchata_tasks.pipeline.steps", "poll")
    command = f"`prefect deployment run 'enrich/{team.name}'`"
    assert f"stopped; start it again by {command}: it carries on, and lands" in status(team)
    with opened_ledger(team.ledger.ledger_url) as ledger:
        ledger.note_watched()
    by_itself = f"`watch` has its flow run started again, within some minutes, or {command} now"
    assert f"stopped; {by_itself}: it carries on, and lands what was sent." in status(team)


def test_a_cancelled_run_that_a_person_starts_again_runs(team: Team, emulator: Emulator) -> None:
    """Retry sends what has no answer, also if it is forced; whom `watch` resumes sends nothing.

    That one says so, and how to start it again. Nothing is paid for twice.
    """
    retry = ("SCHEDULED", "AwaitingRetry")
    emulator.control.progress("seconds", 3600)
    run = executed(team, team.begin(**WHOLE))
    set_state(team, run["id"], "CANCELLING")
    watched(team)
    emulator.control.progress("immediate")
    watched(team)
    with open_batches(emulator):
        set_state(team, run["id"], *retry, force=True)
        assert executed(team, run["id"])["state_name"] == "Suspended"
    cancelled = batchata("cancel", WHOLE["spec"], cwd=team.folder, env=team.env)
    assert cancelled.returncode == 0, cancelled.stderr
    assert watched(team)["resumed"] == [run["id"]]
    again = executed(team, run["id"])
    assert again["state_name"] == "BatchesCancelled"
    assert again["state"]["message"].endswith("start this flow run again (Retry), or another one.")
    set_state(team, run["id"], *retry, force=True)
    assert executed(team, run["id"])["state_name"] == "Completed"
    book = emulator.control.ledger()["anthropic"]
    assert (book["requests_billed"], book["billed_twice"]["number"]) == (ROWS, 0)
    assert len(artifacts(team, run, f"receipt-{team.name}")) == 3


def test_the_page_of_a_cancelled_run_tells_what_became_of_it(
    team: Team, emulator: Emulator
) -> None:
    """`watch` leaves the receipt, the rows' state and a line in the log there, and sends events.

    The run itself stays as the person left it.
    """
    in_halves = {**WHOLE, "overrides": {"pilot": False, "items_per_batch": 200}}
    with open_batches(emulator):
        run = executed(team, team.begin(**in_halves))
        emulator.control.finish(emulator.control.ledger()["anthropic"]["batches"][0]["id"])
        set_state(team, run["id"], "CANCELLING")
        watched(team)
        status = shown(team, run)["markdown"]["data"]
        assert "| Batches | 1 landed, 1 being cancelled |" in status
        assert "| Stopping | it was cancelled |" in status
    watched(team)
    after = shown(team, run)
    assert after["progress"]["data"] == 100
    assert "| Stopped | it was cancelled |" in after["markdown"]["data"]
    (receipt,) = artifacts(team, run, f"receipt-{team.name}")
    assert "| Result | cancelled |" in receipt["data"]
    assert "200 succeeded" in receipt["data"]
    assert until(lambda: told(team, run, "receipt: cancelled: "))
    assert team.states(run)[-1] == "Cancelled"
    assert team.states(run).count("Cancelled") == 1
    assert related_to(team, "batchata.rows-landed", run) == "cancelled"


def test_a_run_that_is_cancelled_at_work_tells_what_becomes_of_it(
    team: Team, emulator: Emulator
) -> None:
    """Its log says who cancels its batches, that this was done, and what landed, in that order.

    No step of it has failed, and nothing says that it is running.
    """
    emulator.control.progress("seconds", 3600)
    in_halves = {"pilot": False, "items_per_batch": 200}
    run = team.begin(spec=WHOLE["spec"], overrides=in_halves, wait="process")
    words = ("-m", "prefect", "flow-run", "execute", run)
    with start(*words, cwd=team.folder, env=team.env) as process:
        until(lambda: team.log({"id": run}).count("at the provider") == 2)
        set_state(team, run, "CANCELLING")
        process.wait()
    assert "Traceback" not in process.stdout + process.stderr
    assert team.server.get(f"flow_runs/{run}")["state_name"] == "Cancelled"
    ends = {
        task["name"].split()[0]: (task["state_name"], task["state"]["message"])
        for task in team.server.task_runs(run, 7)
    }
    assert ends.pop("poll") == (
        "Cancelled",
        "The run was cancelled; its log tells what becomes of its batches.",
    )
    assert {name for name, _ in ends.values()} == {"Completed"}
    assert len(watched(team)["cancelled"]) == 1
    emulator.control.progress("immediate")
    watched(team)
    lines = until(lambda: told(team, {"id": run}, "receipt: "), every=0.3)
    asked = lines.index(
        "this run is cancelled: `watch` cancels its 2 open batches at the provider at its next "
        "pass, and lands what ran."
    )
    assert lines[asked + 1 : -1] == [
        "Flow run was cancelled.",
        "`watch` asked the provider to cancel 2 batches.",
    ]
    assert lines[-1].startswith("receipt: cancelled: 400 canceled; cost: $0.00 ")


def test_a_cancel_is_told_also_if_the_worker_ends_meanwhile(team: Team, emulator: Emulator) -> None:
    """Its process is told to end twice, by a signal alone: its last words reach the server."""
    emulator.control.progress("seconds", 3600)
    run = team.begin(**WHOLE, wait="process")
    set_state(team, run, "PENDING")
    env = {**team.env, "PREFECT__FLOW_RUN_ID": run}
    with start("-m", "prefect.engine", cwd=team.folder, env=env) as process:
        until(lambda: "at the provider" in team.log({"id": run}))
        set_state(team, run, "CANCELLING")
        for _ in range(2):
            process.send_signal(signal.SIGTERM)
        process.wait()
    assert any("this run is cancelled: " in line for line in team.log({"id": run}).splitlines())


@pytest.mark.parametrize(
    ("module", "name", "after"),
    [
        ("batchata_tasks.pipeline.finish", "discard_uploads", False),
        ("batchata_tasks.flows.receipts", "log_anothers", False),
        ("batchata_tasks.flows.receipts", "log_anothers", True),
    ],
    ids=["the run has just ended", "its receipt is there", "all is there"],
)
def test_a_pass_that_dies_while_it_tells_of_a_run_is_made_up_for(
    team: Team, emulator: Emulator, module: str, name: str, *, after: bool
) -> None:
    """The next one tells the rest; what is there already, events as well, is there once."""
    emulator.control.progress("seconds", 3600)
    run = executed(team, team.begin(**WHOLE))
    set_state(team, run["id"], "CANCELLING")
    watched(team)
    emulator.control.progress("immediate")
    script = DYING.format(module=module, name=name, after=after, program="batchata_tasks.cli")
    died = start("-c", script, "watch", "--once", cwd=team.folder, env=team.env).wait()
    assert died.returncode == -9, died.stderr
    for _ in range(2):
        watched(team)
    lines = until(lambda: told(team, run, "receipt: cancelled: "))
    assert sum(line.startswith("receipt: ") for line in lines) == 1
    keys = [f"{kind}-{team.name}" for kind in ("receipt", "failed", "status")]
    assert sorted(one["key"] for one in artifacts(team, run, *keys)) == sorted(keys)
    assert "| Stopped | it was cancelled |" in shown(team, run)["markdown"]["data"]
    assert related_to(team, "batchata.rows-failed", run) == "cancelled"


def test_what_watch_lands_itself_is_an_event_of_the_run_that_sent_it(
    team: Team, emulator: Emulator
) -> None:
    """Nobody goes on with a run that a person called failed: what it sent lands, and is told."""
    with open_batches(emulator):
        run = executed(team, team.begin(**WHOLE))
        set_state(team, run["id"], "FAILED", force=True)
    assert len(watched(team)["landed"]) == 1
    assert shown(team, run)["progress"]["data"] == 100
    assert related_to(team, "batchata.rows-landed", run) == "open"
    assert artifacts(team, run, f"receipt-{team.name}") == []  # the next run of the spec ends it


def related_to(team: Team, name: str, run: dict[str, Any]) -> str:
    """Return the result that the one event of a flow run tells, to which no other is related."""
    (event,) = until(lambda: [one for one in events(team, name) if run["id"] in str(one)])
    assert event["resource"]["prefect.resource.id"] == f"batchata.dataset.{team.name}"
    related = {one["prefect.resource.role"]: one["prefect.resource.id"] for one in event["related"]}
    assert related["flow-run"] == f"prefect.flow-run.{run['id']}"
    assert related["deployment"] == f"prefect.deployment.{run['deployment_id']}"
    return event["payload"]["result"]


def test_a_cancel_outlives_the_process_that_was_to_do_it(team: Team, emulator: Emulator) -> None:
    """An automation that starts the lost run again lets nothing go on that a person cancelled."""
    emulator.control.progress("seconds", 3600)
    flow_run = team.begin(**WHOLE)
    killed(team, flow_run, "batchata_tasks.pipeline.steps", "poll")
    set_state(team, flow_run, "CANCELLING", force=True)  # as if a worker had it in hand
    run = started_again(team, flow_run)
    assert (run["state_type"], run["state_name"]) == ("COMPLETED", "BatchesCancelled")
    assert len(watched(team)["cancelled"]) == 1
    (batch,) = emulator.control.ledger()["anthropic"]["batches"]
    assert batch["status"] in ("canceling", "ended")
    assert sent(emulator) == ROWS


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("place", "after"),
    [(PROPOSE, False), (PROPOSE, True)],
    ids=["before it is suspended", "once it is suspended"],
)
def test_a_kill_around_the_suspension_loses_nothing(
    team: Team, emulator: Emulator, place: tuple[str, str], *, after: bool
) -> None:
    """Killed at that instant, the run is started again, waits again, and pays nothing twice."""
    with open_batches(emulator):
        flow_run = team.begin(**WHOLE)
        killed(team, flow_run, *place, after=after)
        state = team.server.get(f"flow_runs/{flow_run}")["state_name"]
        assert state == ("Suspended" if after else "Running")
        assert started_again(team, flow_run)["state_name"] == "Suspended"
    assert watched(team)["resumed"] == [flow_run]
    assert executed(team, flow_run)["state_name"] == "Completed"
    assert landed_once(team, emulator)


def test_a_kill_while_resuming_loses_nothing(team: Team, emulator: Emulator) -> None:
    """Killed as it lands what was sent, the run is started again, and its rows are paid once."""
    with open_batches(emulator):
        flow_run = executed(team, team.begin(**WHOLE))["id"]
    assert watched(team)["resumed"] == [flow_run]
    killed(team, flow_run, "batchata_tasks.pipeline.steps", "collect_and_land")
    assert watched(team)["landed"] == []  # it may only be slow
    assert started_again(team, flow_run)["state_name"] == "Completed"
    assert landed_once(team, emulator)


def test_a_run_is_suspended_while_another_one_has_the_money_of_its_budget(
    team: Team, emulator: Emulator
) -> None:
    """It ends with no cost limit: it says what it waits for, and goes on once money came back."""
    plan = batchata("plan", WHOLE["spec"], "--json", cwd=team.folder, env=team.env)
    bound = float(json.loads(plan.stdout)["upper_bound_usd"])
    # less than a row is left while all rows of one spec are under way
    budget = {"name": "shared", "limit_usd": bound + bound / ROWS / 9, "period": "total"}
    first, second = (
        {"pilot": False, "budget": budget, "name": name, "output": f"data/out/{name}"}
        for name in ("first", "second")
    )
    limits = events(team, "batchata.cost-limit-reached")
    with open_batches(emulator):
        one = executed(team, team.begin(**{**WHOLE, "overrides": first}))
        assert one["state"]["message"].startswith("waiting for 1 of 1 batch, ")
        two = executed(team, team.begin(**{**WHOLE, "overrides": second}))
        assert (two["state_type"], two["state_name"]) == ("PAUSED", "Suspended")
        assert " of budget 'shared' that other runs have reserved" in two["state"]["message"]
        assert watched(team)["resumed"] == []
    assert watched(team)["resumed"] == [one["id"]]
    assert executed(team, one["id"])["state_name"] == "Completed"
    assert watched(team)["resumed"] == [two["id"]]
    ended = executed(team, two["id"])
    assert (ended["state_name"], ended["state"]["message"]) == ("Completed", "400 succeeded")
    assert events(team, "batchata.cost-limit-reached") == limits
    assert sent(emulator) == 2 * ROWS
