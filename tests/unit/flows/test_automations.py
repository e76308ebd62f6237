"""Automations that are registered again are brought up to date, and nobody else's are replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast
from uuid import UUID, uuid4

import pytest
import yaml
from prefect.events.schemas.automations import Automation, AutomationCore
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from batchata_tasks.flows import automations
from batchata_tasks.flows.automations import main, register, registered
from batchata_tasks.operations.draft.files import automations_text

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self


class Server:
    """Keeps automations, as a Prefect server does."""

    def __init__(self) -> None:
        self.there = dict[UUID, Automation]()
        self.updated = list[str]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read_automations_by_name(self, name: str) -> list[Automation]:
        return [one for one in self.there.values() if one.name == name]

    def create_automation(self, automation: AutomationCore) -> UUID:
        made = uuid4()
        self.there[made] = Automation(id=made, **automation.model_dump(exclude={"id"}))
        return made

    def update_automation(self, automation_id: UUID, automation: AutomationCore) -> None:
        self.updated.append(automation.name)
        self.there[automation_id] = Automation(id=automation_id, **automation.model_dump())

    def delete_automation(self, automation_id: UUID) -> None:
        del self.there[automation_id]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()

    def client(*, sync_client: bool) -> Server:
        assert sync_client
        return server

    monkeypatch.setattr(automations, "get_client", client)
    return server


def named(server: Server, name: str) -> Automation:
    (one,) = server.read_automations_by_name(name)
    return one


def test_automations_are_registered_once(server: Server) -> None:
    """A second time changes what the text changes, and leaves off what a person switched off."""
    text = automations_text()
    assert len(registered(text, "x.yaml")) == len(server.there) == 5
    paused = named(server, "carry-on-crashed-runs")
    server.there[paused.id] = paused.model_copy(update={"enabled": False})
    server.create_automation(cast("AutomationCore", named(server, "crash-lost-runs")))  # a double
    before = named(server, "pause-at-the-cost-limit").id
    registered(text.replace("stopped at its cost limit", "spent its money"), "x.yaml")
    assert len(server.there) == 5
    assert named(server, "carry-on-crashed-runs").enabled is False
    limit = named(server, "pause-at-the-cost-limit")
    assert (limit.id, limit.enabled) == (before, True)
    assert limit.description.startswith("A run spent its money")


def test_what_has_not_changed_is_left_alone(server: Server) -> None:
    """An automation that is replaced forgets which runs it waits for; one that changed is alone."""
    text = automations_text()
    for _ in range(2):
        registered(text, "x.yaml")
    assert server.updated == []
    registered(text.replace("within: 90 ", "within: 120 "), "x.yaml")
    assert server.updated == ["crash-lost-runs"]


def test_a_run_that_says_so_itself_is_not_taken_for_lost() -> None:
    """Prefect may tell of its end, or that it is suspended, a quarter of an hour late."""
    lost, *_ = yaml.safe_load(automations_text())["automations"]
    assert {"batchata.run-ended", "batchata.run-suspended"} <= set(lost["trigger"]["expect"])


def test_another_ones_automation_is_not_replaced(server: Server) -> None:
    """One of that name that waits for nothing of ours is named, and nothing is registered."""
    text = automations_text()
    theirs = yaml.safe_load(text.replace("batchata", "nightly"))["automations"][0]
    foreign = server.create_automation(AutomationCore.model_validate(theirs))
    with pytest.raises(SystemExit, match="'crash-lost-runs' on this Prefect server is not one of"):
        registered(text, "x.yaml")
    assert list(server.there) == [foreign]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("automations: [", "x.yaml: "),
        ("nothing: here", "x.yaml: automations: "),
        ("automations: [{name: x}]", "x.yaml: automations.0.trigger: "),
        ("automations: [{name: x, trigger: {type: event}, actions: [7]}]", "x.yaml: automations.0"),
    ],
)
def test_a_file_that_will_not_do_is_one_sentence(server: Server, text: str, said: str) -> None:
    """It names the file and the place in it, and nothing is registered."""
    with pytest.raises(SystemExit) as raised:
        registered(text, "x.yaml")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert server.there == {}


def test_a_missing_file_is_one_sentence(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a step of `prefect deploy`, and by hand, where it is a wrong command."""
    with pytest.raises(SystemExit, match=r"none.yaml cannot be read \(FileNotFoundError\)"):
        register(str(tmp_path / "none.yaml"))
    with pytest.raises(SystemExit) as raised:
        main([str(tmp_path / "none.yaml")])
    assert raised.value.code == 2
    assert "cannot be read" in capsys.readouterr().err
    assert server.there == {}


def test_by_hand_the_shipped_ones_are_registered(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a file, so that an installed wheel is enough; their names are printed."""
    main([])
    assert len(server.there) == 5
    assert capsys.readouterr().out.startswith("5 automations: crash-lost-runs, ")


def test_a_server_that_is_down_is_one_sentence() -> None:
    """It says that nothing was registered."""
    updates = {PREFECT_API_URL: "http://127.0.0.1:1/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(updates), pytest.raises(SystemExit) as raised:
        registered(automations_text(), "x.yaml")
    assert "no automation was registered" in str(raised.value)
