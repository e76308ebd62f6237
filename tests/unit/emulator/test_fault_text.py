"""Faults on the command line, and the list of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from batchata_tasks.cli.commands import app
from batchata_tasks.emulator.core.fault_kinds import IDS, KINDS, ROUTES, STYLES
from batchata_tasks.emulator.core.fault_text import parse_fault, reads
from batchata_tasks.emulator.core.faults import SETTINGS, FaultError

if TYPE_CHECKING:
    from typer.testing import Result


def batchata(*words: str) -> Result:
    """Run a command in this process, 80 columns wide."""
    return CliRunner().invoke(app, words, env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_settings_that_exist(kind: str) -> None:
    """What the help says that a kind reads is a setting, and can be given; routes exist."""
    assert set(reads(kind)) <= set(SETTINGS)
    assert set(KINDS[kind].routes) <= set(ROUTES)
    style = {"odd_objects": ":style=blank", "odd_id": ":style=long"}.get(kind, "")
    assert parse_fault(f"{kind}{style}").kind == kind


def test_settings_have_types_and_texts_may_have_commas() -> None:
    """Numbers become numbers, a flag needs no value, a text is as it was given."""
    rule = parse_fault("http_error:status=502,html,message=a, b,probability=0.5,empty=false")
    assert (rule.status, rule.html, rule.empty) == (502, True, False)
    assert (rule.message, rule.probability) == ("a, b", 0.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http_eror", "unknown fault 'http_eror' (did you mean http_error?)"),
        ("", "unknown fault ''"),
        ("http_error:", "a setting is missing after 'http_error:'"),
        ("http_error:stat=3", "http_error has no setting 'stat' (did you mean status?)"),
        ("http_error:kind=http_429", "http_error has no setting 'kind'"),
        ("http_error:status=many", "status of http_error must be a whole number, not 'many'"),
        ("http_error:probability=x", "probability of http_error must be a number, not 'x'"),
        ("http_error:status=", "status of http_error needs a value, as in status=…"),
        ("http_error:status=200", "status of http_error must be from 400 to 599, not 200"),
        ("http_error:html=maybe", "html of http_error must be true or false, not 'maybe'"),
        ("drop_after:status=500", "drop_after does not read 'status'; it reads provider, route"),
        ("odd_objects", "style of odd_objects must be one of capitals, "),
        ("odd_objects:style=caps", "not 'caps'"),
        ("odd_id:style=blank", "style of odd_id must be one of number, long, same, not 'blank'"),
        ("redirect:status=500", "status of redirect must be from 300 to 399, not 500"),
        ("late_files:file=input", "file of late_files must be one of output, error, not 'input'"),
        ("http_429:route=creates", "route of http_429 must be one of create, get, "),
    ],
)
def test_what_is_wrong_is_said(text: str, words: str) -> None:
    """One sentence names the setting, and what is near or allowed."""
    with pytest.raises(FaultError, match=re.escape(words)):
        parse_fault(text)


def test_a_wrong_fault_ends_the_command() -> None:
    """Nothing is served: exit code 2, the sentence, and where to look."""
    done = batchata("emulator", "--fault", "http_eror")
    assert done.exit_code == 2
    assert "--fault: unknown fault 'http_eror' (did you mean http_error?)" in done.stderr
    assert "`batchata emulator --list-faults` has all" in done.stderr


def test_the_list_has_every_knob() -> None:
    """Each kind, route and style is there, and no line is longer than the terminal is wide."""
    done = batchata("emulator", "--list-faults")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    first = {found[1] for line in lines if (found := re.match(r"│ +(\w+) ", line))}
    assert set(KINDS) | set(STYLES) | set(IDS) <= first
    assert set(ROUTES) <= set(re.findall(r"\w+", done.stdout))


def test_the_help_of_the_emulator_fits_a_screen() -> None:
    """What a first use needs, and how to list the faults: they are many."""
    done = batchata("emulator", "--help")
    assert "--list-faults" in done.stdout
    assert len(done.stdout.splitlines()) <= 40
