"""Settings come from `BATCHATA_` variables and keep the ledger's password to themselves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.settings import Settings, default_ledger_url


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("BATCHATA_")]:
        monkeypatch.delenv(name)


def test_the_documented_defaults() -> None:
    """Without any variable: the user's own ledger, the provider's interval, 900 s of grace."""
    settings = Settings()
    assert settings.ledger_url == default_ledger_url()
    assert settings.ledger_url.startswith("sqlite:////")
    assert settings.ledger_url.endswith("/batchata/ledger.db")
    assert (settings.poll_interval, settings.unclear_grace) == (None, 900)


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("BATCHATA_LEDGER_URL", "postgresql://u:p@h/d", "ledger_url", "postgresql://u:p@h/d"),
        ("BATCHATA_POLL_INTERVAL", "0.5", "poll_interval", 0.5),
        ("BATCHATA_UNCLEAR_GRACE", "0", "unclear_grace", 0),
        ("BATCHATA_PATIENCE", "5", "patience", 5),
        ("BATCHATA_LEASE_SECONDS", "2", "lease_seconds", 2),
        ("BATCHATA_CODE_ROOTS", "a", "code_roots", "a"),
        ("BATCHATA_PRICES", "a.toml", "prices", "a.toml"),
    ],
)
def test_each_variable_sets_its_field(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, field: str, value: object
) -> None:
    """The published names work."""
    monkeypatch.setenv(name, text)
    assert getattr(Settings(), field) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("BATCHATA_POLL_INTERVAL", "0"),
        ("BATCHATA_POLL_INTERVAL", "-1"),
        ("BATCHATA_POLL_INTERVAL", "soon"),
        ("BATCHATA_UNCLEAR_GRACE", "-1"),
        ("BATCHATA_PATIENCE", "-1"),
        ("BATCHATA_LEASE_SECONDS", "1"),
    ],
)
def test_senseless_values_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    """A wait of zero seconds, or of `soon`, is refused with the setting's name."""
    monkeypatch.setenv(name, text)
    with pytest.raises(SpecError, match=name):
        Settings()


@pytest.mark.parametrize("text", ["inf", "-inf", "nan", "1e400", "1e300", "1e10", "604801"])
@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("BATCHATA_POLL_INTERVAL", "more than 0 and at most 86,400"),
        ("BATCHATA_UNCLEAR_GRACE", "at least 0 and at most 604,800"),
        ("BATCHATA_PATIENCE", "at least 0 and at most 86,400"),
        ("BATCHATA_LEASE_SECONDS", "more than 1 and at most 86,400"),
    ],
)
def test_waits_without_end_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, bounds: str, text: str
) -> None:
    """No clock counts so far, and no person waits for it; the sentence says what is allowed."""
    monkeypatch.setenv(name, text)
    with pytest.raises(SpecError) as refused:
        Settings()
    sentence = f"{name}: must be a number of seconds, {bounds}; fix or unset the variable."
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("~nobody-x/code", "~nobody-x/code is in the home folder of nobody; "),
        ("{tmp}/circle/code", "{tmp}/circle/code leads to no folder: "),
    ],
)
def test_code_roots_that_lead_nowhere_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, reason: str
) -> None:
    """The home of nobody, and links that lead in a circle, are named."""
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    root = text.format(tmp=tmp_path)
    monkeypatch.setenv("BATCHATA_CODE_ROOTS", os.pathsep.join([str(tmp_path), root]))
    with pytest.raises(SpecError) as refused:
        Settings()
    assert str(refused.value).startswith(f"BATCHATA_CODE_ROOTS: {reason.format(tmp=tmp_path)}")


def test_the_ledgers_password_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """No repr, text or traceback of the settings holds the ledger's URL."""
    monkeypatch.setenv("BATCHATA_LEDGER_URL", "postgresql://user:canary@host/db")
    assert "canary" not in f"{Settings()!r} {Settings()}"


def test_settings_are_frozen() -> None:
    """A run cannot change its settings while it works."""
    with pytest.raises(ValidationError):
        Settings().patience = 1


def test_code_loads_from_the_working_folder_by_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without `BATCHATA_CODE_ROOTS`, the project's folder is the one root."""
    folder = tmp_path / f"one{os.pathsep}folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert Settings().roots() == [folder.resolve()]


def test_code_roots_are_listed_like_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Several folders, separated as in PATH; links are resolved, blanks left out, ~ is the home."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setenv("BATCHATA_CODE_ROOTS", os.pathsep.join([str(tmp_path / "link"), "", "~"]))
    assert Settings().roots() == [(tmp_path / "real").resolve(), Path.home().resolve()]
