"""Which W&B mode a command takes."""

from pathlib import Path

import pytest
import wandb
from wandb.sdk.lib.wbauth import write_netrc_auth

from kogpt.common.wandb import decided, logged_in

KEY = "0" * 40


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a user who never logged in."""
    for name in ("API_KEY", "BASE_URL", "CONFIG_DIR", "MODE"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.delenv("NETRC", raising=False)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    return tmp_path


def test_logged_in(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    assert not logged_in()
    (home / "netrc").write_text(f"machine api.wandb.ai\n  login user\n  password {KEY}\n")
    assert logged_in()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not logged_in()
    monkeypatch.setenv("WANDB_API_KEY", "key")
    assert logged_in()


@pytest.mark.parametrize("file", [".netrc", "_netrc", "keys"])
@pytest.mark.parametrize("server", [None, "http://localhost:8080"])
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_login_is_found_where_wandb_writes_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, file: str, server: str | None, mode: int
) -> None:
    (home / file).touch(mode)
    (home / file).chmod(mode)
    if file == "keys":
        monkeypatch.setenv("NETRC", "~/keys")
    write_netrc_auth(host=server or wandb.Settings().base_url, api_key=KEY)
    assert logged_in() == (server is None)
    if server is not None:
        monkeypatch.setenv("WANDB_BASE_URL", server)
        assert logged_in()
        monkeypatch.delenv("WANDB_BASE_URL")
        (home / ".config" / "wandb").mkdir(parents=True)  # as `wandb login --host` does
        (home / ".config" / "wandb" / "settings").write_text(f"[default]\nbase_url = {server}\n")
        assert logged_in()


def test_a_key_or_an_address_that_wandb_refuses_is_no_login(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password short\n")
    assert not logged_in()
    monkeypatch.setenv("WANDB_BASE_URL", "nowhere")
    assert not logged_in()
    assert decided("auto") == "offline"


def test_auto_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decided("auto") == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "key")
    assert decided("auto") == "online"
    for value, mode in (("offline", "offline"), ("dryrun", "offline"), ("disabled", "off")):
        monkeypatch.setenv("WANDB_MODE", value)
        assert decided("auto") == mode
        assert decided("online") == "online"


def test_what_the_environment_says_takes_no_look_for_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    """That imports W&B, half a second that every start would pay."""
    monkeypatch.setattr("kogpt.common.wandb.logged_in", lambda: pytest.fail("it looked"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert decided("auto") == "off"
