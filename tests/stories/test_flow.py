"""The flow on a real Prefect server: states, task runs, caching, artifacts, a deployment."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from batchata_tasks.common.settings import Settings
from batchata_tasks.execution.held_dataset import hold_dataset
from batchata_tasks.ledger import ChunkState
from tests.support import commands
from tests.support.commands import python, start
from tests.support.paths import ROOT
from tests.support.table import Table
from tests.support.team import Team
from tests.support.unclear import in_state
from tests.support.waiting import until

if TYPE_CHECKING:
    from batchata_tasks.emulator import Emulator
    from tests.support.commands import Process
    from tests.support.prefect_server import Server

pytestmark = pytest.mark.slow


@pytest.fixture
def table(emulator: Emulator, tmp_path: Path) -> Table:
    """Return a table for Anthropic; the layer under test is Prefect's."""
    return Table(tmp_path, emulator, "anthropic", rows=12)


def command_env(server: Server, table: Table) -> dict[str, str]:
    ours = {k: v for k, v in os.environ.items() if k.startswith("BATCHATA_")}
    return {**server.env, **table.emulator.env(), **ours, "BATCHATA_CODE_ROOTS": str(ROOT)}


def batchata(
    server: Server, table: Table, *words: str, spec: dict[str, Any] | None = None
) -> Process:
    """Run the command on a spec file of the table."""
    path = write_spec(table, spec or {})
    return commands.batchata("run", str(path), *words, env=command_env(server, table))


def write_spec(table: Table, changes: dict[str, Any]) -> Path:
    path = table.folder / "spec.yaml"
    path.write_text(
        yaml.safe_dump(table.spec(**changes).model_dump(mode="json", exclude_unset=True))
    )
    return path


def test_a_run_shows_in_prefect(server: Server, table: Table) -> None:
    """There is one flow run, one named task run for each step and chunk, and a receipt artifact."""
    done = batchata(server, table, "--json", spec={"items_per_batch": 6})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outcomes"] == {"succeeded": 12}
    assert f"a flow run on the Prefect server at http://127.0.0.1:{server.port} " in done.stderr
    assert "starting Prefect" not in done.stderr
    run = server.last_flow_run()
    assert (run["state_type"], run["name"]) == ("COMPLETED", "enrich table")
    names = sorted(task["name"] for task in server.task_runs(run["id"], 10))
    steps = [
        f"{step} batch {n} (6 rows)"
        for step in ("chunk", "collect", "poll", "submit")
        for n in (1, 2)
    ]
    assert names == sorted([*steps, "plan table", "dataset table"])
    artifact = server.ask(
        "artifacts/latest/filter", {"artifacts": {"key": {"any_": ["receipt-table"]}}}
    )[0]
    assert "12 succeeded" in artifact["data"]
    table.check_answers()
    read, written = (assets(server, f"prefect.asset.{what}") for what in _LINEAGE)
    assert written[f"file://{table.output / 'data'}"]["outcomes"] == {"succeeded": 12}
    assert f"file://{table.spec().source}" in read


_LINEAGE = ("referenced", "materialization.succeeded")


def assets(server: Server, event: str) -> dict[str, Any]:
    """Return the facts of an event about assets, by the key of the asset."""

    def found() -> dict[str, Any]:
        wanted = {"filter": {"event": {"name": [event]}}, "limit": 50}
        events = server.ask("events/filter", wanted)["events"]
        return {one["resource"]["prefect.resource.id"]: one["payload"] for one in events}

    return until(found, every=0.3)


def artifacts(server: Server, flow_run_id: str) -> dict[str, dict[str, Any]]:
    """Return the artifacts of a flow run by their keys."""
    wanted = {"artifacts": {"flow_run_id": {"any_": [flow_run_id]}}}
    found = server.ask("artifacts/filter", wanted)
    assert len({one["key"] for one in found}) == len(found)
    return {one["key"]: one for one in found}


def test_a_run_shows_how_it_stands(server: Server, table: Table) -> None:
    """While its batch is open its flow run has a bar and a page; in the end both tell the end.

    They are the same artifacts then: each flow run has one entry in the history of a key.
    """
    table.emulator.control.progress("reads", 10**6)
    spec = {"name": "standing", "items_per_batch": 6, "cost_limit_usd": 1}
    path = write_spec(table, spec)
    with start("run", str(path), env=command_env(server, table)) as running:
        until(lambda: len(in_state(ChunkState.SUBMITTED)) == 2)
        run = server.last_flow_run()["id"]
        before = until(lambda: artifacts(server, run), every=0.3)
        page = until(lambda: artifacts(server, run).get("status-standing"), every=0.3)
        assert before["progress-standing"]["data"] == 0
        assert "0 of 12 landed" in page["data"]
        assert "| Cost | $0.00 of $1.00 spent, " in page["data"]
        table.emulator.control.progress("immediate")
        assert running.wait().returncode == 0, running.stderr
    after = artifacts(server, run)
    assert set(after) == {"progress-standing", "status-standing", "receipt-standing"}
    assert after["progress-standing"]["data"] == 100
    assert "12 of 12 landed" in after["status-standing"]["data"]
    assert after["status-standing"]["id"] == page["id"]


def test_failed_rows_are_a_table(server: Server, table: Table) -> None:
    """Each with its key, its error, and the command that shows it whole.

    Receipt and table are the flow run's.
    """
    table.emulator.control.faults(kind="request_refusal", contains="row 4")
    done = batchata(server, table, spec={"name": "refusing"})
    assert done.returncode == 3, done.stderr
    left = artifacts(server, server.last_flow_run()["id"])
    assert "1 refused, 11 succeeded" in left["receipt-refusing"]["data"]
    (row,) = json.loads(left["failed-refusing"]["data"])
    assert (row["key"], row["outcome"]) == ("k4", "refused")
    words = shlex.split(row["command"])
    shown = commands.batchata(*words[1:], env=command_env(server, table))
    assert shown.returncode == 0, shown.stderr
    assert row["error"] in shown.stdout


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("spec", "fault", "code", "state"),
    [
        ({}, "request_refusal", 3, ("COMPLETED", "SomeRowsFailed")),
        ({"fail_if": {"failed_share": 0.05}}, "request_refusal", 3, ("FAILED", "Failed")),
        ({"cost_limit_usd": 0.000001}, None, 4, ("COMPLETED", "CostLimitReached")),
        ({"prompt": "{{ text }} {{ 1 / 0 }}"}, None, 2, ("FAILED", "Failed")),
        (
            {"pilot": {"rows": 6, "max_invalid_share": 0}},
            "request_refusal",
            1,
            ("FAILED", "Failed"),
        ),
        ({"where": "id == 'k4'"}, "request_broken_line", 1, ("FAILED", "Failed")),
    ],
    ids=[
        "some rows failed",
        "failed above fail_if",
        "cost limit",
        "spec wrong",
        "pilot that does not hold",
        "unreadable batch",
    ],
)
def test_how_a_run_ended_is_told_twice(
    server: Server,
    table: Table,
    spec: dict[str, Any],
    fault: str | None,
    code: int,
    state: tuple[str, str],
) -> None:
    """Exit code and Prefect state agree; an outcome is not a failure."""
    if fault:
        table.emulator.control.faults(kind=fault, contains="row 4")
    done = batchata(server, table, spec=spec)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    run = server.last_flow_run()
    assert (run["state_type"], run["state_name"]) == state


@pytest.mark.parametrize("lost", [False, True], ids=["", "Prefect's results are lost"])
def test_a_killed_flow_run_is_carried_on_by_the_next(
    server: Server, table: Table, lost: bool
) -> None:
    """After kill -9 with batches out, the next flow run lands them and sends nothing twice.

    That also holds without Prefect's results.
    """
    table.emulator.control.progress("seconds", 3600)
    path = write_spec(table, {"items_per_batch": 4})
    with start("run", str(path), env=command_env(server, table)):  # and killed at the end
        until(lambda: table.ledger()["batches_accepted"] == 3)
    table.emulator.control.advance(7200)
    storage = Path(server.env["PREFECT_HOME"]) / "storage"
    assert any(storage.rglob("*"))
    if lost:
        shutil.rmtree(storage)
    done = batchata(server, table, "--json", spec={"items_per_batch": 4})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["continued"] is True
    assert table.ledger()["requests_accepted"] == 12
    assert table.ledger()["accepted_twice"]["number"] == 0
    table.check_answers()


# the flow `enrich`, of which one step is done otherwise; it must be done twice
STEP_OTHERWISE = """
import os, sys
from batchata_tasks.execution.contexts import context_of
from batchata_tasks.flows import tasks
from batchata_tasks.flows.enrich import enrich
from batchata_tasks.pipeline import steps as pipeline
from batchata_tasks.spec.loading import load_spec

done = []
{step}
real = tasks.pipeline
class Shim:
    {name} = staticmethod({name})
    def __getattr__(self, name): return getattr(real, name)
tasks.pipeline = Shim()
enrich(load_spec(sys.argv[1]))
sys.exit(0 if len(done) == 2 else 1)
"""


def enriched_otherwise(server: Server, table: Table, name: str, step: str, *words: str) -> None:
    """Run the flow with a step of that name; check that the step was done twice, all rows once."""
    code = STEP_OTHERWISE.format(name=name, step=step)
    done = python(code, str(write_spec(table, {})), *words, env=command_env(server, table))
    assert done.returncode == 0, done.stderr
    assert table.ledger()["requests_accepted"] == 12
    table.check_answers()


def test_a_cached_value_is_not_believed_over_the_ledger(server: Server, table: Table) -> None:
    """If Prefect's cache says "submitted" and the ledger has no batch, the ledger decides."""
    step = """
def submit_step(ref, chunk_id):
    done.append(chunk_id)
    if len(done) == 1:
        return {"chunk": chunk_id, "batch_id": "msgbatch_other"}
    return pipeline.submit_step(ref, chunk_id)
"""
    enriched_otherwise(server, table, "submit_step", step)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_request_file_that_was_cut_short_is_written_anew(
    server: Server, table: Table, share: float
) -> None:
    """Whoever wrote it (a worker whose disk was full, say): all requests are sent, once."""
    step = """
def chunk_step(ref, chunk_id):
    value = pipeline.chunk_step(ref, chunk_id)
    done.append(chunk_id)
    if len(done) == 1:
        context = context_of(ref)
        path = context.request_file(context.ledger.chunk(chunk_id))
        os.truncate(path, int(path.stat().st_size * float(sys.argv[2])))
    return value
"""
    enriched_otherwise(server, table, "chunk_step", step, str(share))


def in_python(server: Server, table: Table, code: str) -> Any:
    """Run code that calls a flow, in a process of its own.

    Return the JSON value of its last line.
    """
    done = python(code, env=command_env(server, table))
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


BATCH = """
import json
from batchata_tasks import Batch

def labelled():
    batch = Batch({folder!r}, items_per_batch=2)
    batch.set_default_params(model="claude-haiku-5-5", max_tokens=50)
    for number in range(4):
        batch.add_job(prompt=f"text {{number}}", id=str(number))
    return batch.run().results()
"""


def test_a_batch_inside_a_flow_is_its_child_tasks(server: Server, table: Table) -> None:
    """Inside a user's flow, a Batch's steps are task runs of that flow run, one per kind and batch.

    The flow is never suspended.
    """
    code = (
        BATCH.format(folder=str(table.folder / "batch"))
        + """
from prefect import flow

@flow
def mine():
    return len(labelled())

print(json.dumps(mine()))
"""
    )
    assert in_python(server, table, code) == 4
    flow_run = server.last_flow_run()
    assert (flow_run["state"]["name"], flow_run["name"].startswith("batch ")) == (
        "Completed",
        False,
    )
    names = sorted(run["name"].split(" (")[0] for run in server.task_runs(flow_run["id"], 9))
    steps = ("chunk", "collect", "poll", "submit")
    assert names == sorted(
        ["plan batch", *(f"{step} batch {number}" for step in steps for number in (1, 2))]
    )
    assert table.ledger()["requests_accepted"] == 4


def test_a_batch_is_a_flow_run_where_prefect_is_configured(server: Server, table: Table) -> None:
    """With PREFECT_API_URL set, a plain script's Batch is a flow run of its own.

    Its receipt is an artifact.
    """
    code = (
        BATCH.format(folder=str(table.folder / "batch"))
        + "print(json.dumps([result.is_success() for result in labelled().values()]))"
    )
    assert in_python(server, table, code) == [True] * 4
    flow_run = server.last_flow_run()
    assert (flow_run["name"], flow_run["state"]["name"], flow_run["parameters"]["jobs"]) == (
        "batch batch",
        "Completed",
        4,
    )
    artifact = server.ask(
        "artifacts/latest/filter", {"artifacts": {"key": {"any_": ["receipt-batch"]}}}
    )[0]
    assert "4 succeeded" in artifact["data"]


def test_a_flow_run_is_cancelled_by_its_id(server: Server, table: Table) -> None:
    """The flow `cancel` finds the spec of a dead flow run, cancels its batches and lands what ran.

    It leaves an artifact.
    """
    table.emulator.control.progress("reads", 10**6)
    path = write_spec(table, {"items_per_batch": 6})
    with start("run", str(path), env=command_env(server, table)):  # and killed at the end
        # not while a create is answered: a batch in doubt that never ends would be awaited
        until(lambda: len(in_state(ChunkState.SUBMITTED)) == 2)
    died = server.last_flow_run()["id"]
    code = (
        "import json; from flows.cancel import cancel; "
        f"print(json.dumps(cancel(flow_run_id={died!r})))"
    )
    result = in_python(server, table, code)
    assert (result["result"], result["outcomes"]) == ("cancelled", {"canceled": 12})
    artifact = server.ask("artifacts/latest/filter", {"artifacts": {"key": {"any_": ["cancel"]}}})[
        0
    ]
    assert "12 canceled" in artifact["data"]


def test_only_runs_of_enrich_are_cancelled_by_their_id(server: Server, table: Table) -> None:
    """An id that the server does not know, or of another flow's run, is refused in one sentence.

    The flow run's spec takes precedence over `spec`.
    """
    code = """
import json
from uuid import uuid4
from flows.cancel import cancel
from flows.plan import plan

def refused(run_id):
    return cancel.fn(spec="elsewhere.yaml", flow_run_id=run_id).message

state = plan({path!r}, return_state=True)
print(json.dumps([refused(uuid4()), refused(state.state_details.flow_run_id)]))
""".replace("{path!r}", repr(str(write_spec(table, {}))))
    unknown, other = in_python(server, table, code)
    assert "knows no flow run" in unknown
    assert "is a run of the flow 'plan'" in other


def test_planning_is_a_flow(server: Server, table: Table) -> None:
    """Its result and its artifact say what a run would send and cost.

    Nothing is sent, and no dataset is made.
    """
    path = write_spec(table, {"cost_limit_usd": 1})
    code = (
        "import json; from flows.plan import plan; "
        f"print(json.dumps(plan({str(path)!r}, {{'limit': 7}})))"
    )
    result = in_python(server, table, code)
    assert (result["reasons"], result["requests"], result["over_limit"]) == ({"new": 7}, 7, 5)
    assert 0 < float(result["expected_usd"]) < float(result["upper_bound_usd"])
    artifact = server.ask(
        "artifacts/latest/filter", {"artifacts": {"key": {"any_": ["plan-table"]}}}
    )[0]
    assert "7 requests in 1 batch" in artifact["data"]
    assert "enough for the most that one attempt at each row may cost" in artifact["data"]
    assert table.ledger()["requests_accepted"] == 0
    assert not table.output.exists()


WRONG = """
from batchata_tasks.common.errors import InputError
from batchata_tasks.flows.{flow} import {flow}
try:
    {flow}({arguments})
except InputError as error:
    print(f"raised {{type(error).__name__}}: {{error}}")
"""


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("flow", "arguments", "says"),
    [
        ("enrich", "'spec.yaml', overrides={'limit': 'few'}", "`limit`: "),
        ("enrich", "'gone.yaml'", "SPEC: there is no file gone.yaml"),
        ("plan", "'spec.yaml', overrides={'limits': 3}", "did you mean `limit`?"),
        ("cancel", "", "give `spec` or `flow_run_id`."),
        ("reconcile", "adopt=['x']", "CHUNK=BATCH"),
    ],
)
def test_a_wrong_parameter_is_a_sentence(
    server: Server, table: Table, flow: str, arguments: str, says: str
) -> None:
    """State and log have one sentence and no traceback; who calls the flow gets it raised."""
    write_spec(table, {})
    code = WRONG.format(flow=flow, arguments=arguments)
    done = python(code, cwd=table.folder, env=command_env(server, table))
    assert done.returncode == 0, done.stderr
    run = server.last_flow_run()
    message = run["state"]["message"]
    assert (run["state_type"], "\n" in message) == ("FAILED", False)
    assert says in message
    assert done.stdout.strip().endswith(f"Error: {message}")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


CALLED = """
from batchata_tasks.flows.enrich import enrich
from batchata_tasks.flows.refused import FailedRunError
try:
    enrich("spec.yaml")
except FailedRunError as error:
    print(error.receipt["outcomes"]["refused"], error)
"""


def test_a_failed_run_raises_its_sentence_and_receipt(server: Server, table: Table) -> None:
    """Whoever calls the flow learns what it did and cost; nobody has to read a traceback."""
    table.emulator.control.faults(kind="request_refusal", contains="row 4")
    write_spec(table, {"fail_if": {"failed_share": 0.05}})
    done = python(CALLED, cwd=table.folder, env=command_env(server, table))
    state = server.last_flow_run()["state"]
    assert (state["type"], state["message"][:4]) == ("FAILED", "8.3%")
    assert done.stdout.strip().endswith(f"1 {state['message']}")
    assert "Traceback" not in done.stderr


IN_A_WORKER = """
import os, sys
from prefect.client.orchestration import get_client
from batchata_tasks.flows.enrich import enrich
parameters = {"spec": "spec.yaml", "overrides": {"limt": 20}}
with get_client(sync_client=True) as client:
    flow_run = client.create_flow_run(enrich, parameters=parameters)
os.environ["PREFECT__FLOW_RUN_ID"] = str(flow_run.id)
engine = [sys.executable, "-m", "prefect.flow_engine", "batchata_tasks.flows.enrich.enrich"]
os.execv(sys.executable, engine)
"""


def test_a_wrong_override_is_a_sentence_in_a_workers_log(server: Server, table: Table) -> None:
    """A worker starts the flow by Prefect's engine, which logs what a flow raises."""
    write_spec(table, {})
    done = python(IN_A_WORKER, cwd=table.folder, env=command_env(server, table))
    state = server.last_flow_run()["state"]
    said = "spec: unknown key `limt`; did you mean `limit`?"
    assert (state["type"], state["message"]) == ("FAILED", said)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_reconciling_is_a_flow(server: Server, table: Table) -> None:
    """Its result and its artifact list the known batches and those that nobody owns."""
    table.run()
    (stray,) = table.emulator.control.foreign("anthropic", requests=7)
    code = "import json; from flows.reconcile import reconcile; print(json.dumps(reconcile()))"
    result = in_python(server, table, code)
    assert result["known"] == {"anthropic": 1, "openai": 0}
    assert [line["batch_id"] for line in result["strays"]] == [stray]
    artifact = server.ask(
        "artifacts/latest/filter", {"artifacts": {"key": {"any_": ["reconcile"]}}}
    )[0]
    assert stray in artifact["data"]


def test_a_reached_limit_is_an_event(server: Server, table: Table) -> None:
    """The server has the event, with the dataset as its resource.

    The automation of `deployments` waits for it.
    """
    done = batchata(server, table, spec={"name": "limited", "cost_limit_usd": 0.000001})
    assert done.returncode == 4, done.stderr
    wanted = {
        "filter": {
            "event": {"name": ["batchata.cost-limit-reached"]},
            "resource": {"id": ["batchata.dataset.limited"]},
        }
    }
    (event,) = until(lambda: server.ask("events/filter", wanted)["events"], every=0.3)
    assert event["resource"]["batchata.dataset"] == str(table.output / "data")
    assert (event["payload"]["unsent_rows"], event["payload"]["cost_limit_usd"]) == (
        12,
        "0.000001000000",
    )
    assert server.last_flow_run()["id"] in str(event["related"])
    *_, automation = yaml.safe_load((ROOT / "deployments" / "automations.yaml").read_text())[
        "automations"
    ]
    trigger = server.ask("automations/", automation)["trigger"]
    assert trigger["expect"] == [event["event"]]
    assert event["resource"]["prefect.resource.id"].startswith(
        trigger["match"]["prefect.resource.id"].removesuffix("*")
    )


MODEL = """
from pathlib import Path
from pydantic import BaseModel

with (Path(__file__).parent / "loaded").open("a") as log:
    log.write("once\\n")

class Label(BaseModel):
    word: str
"""


def test_a_flow_loads_the_code_of_its_spec_once(server: Server, table: Table) -> None:
    """What the command checked is handed on to the flow run that it starts."""
    (table.folder / "model.py").write_text(MODEL)
    model = f"{table.folder / 'model.py'}:Label"
    path = write_spec(table, {"response_schema": None, "response_model": model})
    env = {**command_env(server, table), "BATCHATA_CODE_ROOTS": str(table.folder)}
    done = commands.batchata("run", str(path), env=env)
    assert done.returncode == 0, done.stderr
    assert (table.folder / "loaded").read_text() == "once\n"


def test_a_server_that_is_gone_is_named(server: Server, table: Table) -> None:
    """The command ends with 2 and a sentence that names the setting, and sends nothing."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # nobody listens there
        gone = f"http://127.0.0.1:{probe.getsockname()[1]}/api"
        env = {**command_env(server, table), "PREFECT_API_URL": gone}
        run = commands.batchata("run", str(write_spec(table, {})), env=env)
    assert run.returncode == 2
    assert f"PREFECT_API_URL: Prefect's server at {gone} cannot be reached" in run.stderr
    assert "Traceback" not in run.stderr
    assert table.ledger()["requests_accepted"] == 0


def test_a_server_without_a_health_check_is_used(server: Server, table: Table) -> None:
    """A proxy that answers that one path with 404 does not keep a run from its server."""

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.pass_on()

        def do_POST(self) -> None:
            self.pass_on()

        def do_PATCH(self) -> None:
            self.pass_on()

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            connection = HTTPConnection("127.0.0.1", server.port)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(404 if self.path == "/api/health" else answer.status)
            for name in ("content-type", "content-encoding"):
                if value := answer.getheader(name):
                    self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{proxy.server_address[1]}/api"
        env = {**command_env(server, table), "PREFECT_API_URL": url}
        run = commands.batchata("run", str(write_spec(table, {})), env=env)
        proxy.shutdown()
    assert run.returncode == 0, run.stderr
    assert table.ledger()["requests_accepted"] == 12


def test_a_run_beside_another_one_is_no_failure(server: Server, table: Table) -> None:
    """It ends as Completed `AlreadyRunning` with the holder's name.

    The command says so at once and exits with 1.
    """
    with hold_dataset(str(table.output), Settings(), run="flow run 0815"):
        done = batchata(server, table)
    holder = f"process {os.getpid()} (flow run 0815) on {socket.gethostname()} (this machine)"
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert f"another run holds this dataset: {holder}" in done.stderr
    run = server.last_flow_run()
    assert (run["state_type"], run["state_name"]) == ("COMPLETED", "AlreadyRunning")
    assert run["state"]["message"] == f"nothing was sent: {holder} is at work on this dataset"
    assert table.ledger()["requests_accepted"] == 0


DEPLOYED = """
import json, os
from batchata_tasks.flows.enrich import enrich
state = enrich({path!r}, return_state=True)
print(json.dumps([state.name, state.message]))
"""


@pytest.mark.parametrize("alive", [True, False], ids=["alive", "dead on another machine"])
def test_a_scheduled_run_looks_whether_the_holder_lives(
    server: Server, table: Table, monkeypatch: pytest.MonkeyPatch, alive: bool
) -> None:
    """A holder that renews its lease is left alone.

    One that fell silent is awaited until its lease has ended, and its run carried on.
    """
    monkeypatch.setenv("BATCHATA_LEASE_SECONDS", "8")
    # what a worker's run finds set
    monkeypatch.setitem(server.env, "PREFECT__RUNTIME__DEPLOYMENT__ID", "the-night-run")
    path = write_spec(table, {})
    with hold_dataset(str(table.output), Settings()) as site:
        if not alive:
            site.stop.set()  # nobody renews the lease any more
            with monkeypatch.context() as elsewhere:
                elsewhere.setattr(socket, "gethostname", lambda: "elsewhere")
                site.ledger.release_lease(site.lease)
                site.ledger.acquire_lease(site.lease.dataset_id, 8)
        name, message = in_python(server, table, DEPLOYED.format(path=str(path)))
    assert name == ("AlreadyRunning" if alive else "Completed"), message
    assert table.ledger()["requests_accepted"] == (0 if alive else 12)


def test_two_teams_take_nothing_over(server: Server, table: Table, tmp_path: Path) -> None:
    """Two copies run on one server, each under its spec's own name.

    Each has four deployments, in its own folder, and both have one `watch`.
    """
    teams = [
        Team(tmp_path / name, server, table.emulator, name)
        for name in ("package-topics", "ticket-topics")
    ]
    server.command("work-pool", "create", "local", "--type", "process", cwd=ROOT)
    for team in teams:
        team.prefect("--no-prompt", "deploy", "--all")
    for team in teams:
        for flow in ("enrich", "plan", "cancel", "reconcile"):
            (step,) = team.deployment(flow)["pull_steps"]
            assert step["prefect.deployments.steps.set_working_directory"]["directory"] == str(
                team.folder
            )
    assert len(server.ask("deployments/filter")) == 9
