"""Which W&B mode a command takes."""

from pathlib import Path

import pytest

from kogpt.common.wandb import decided, logged_in


def test_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert not logged_in()
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password key\n")
    assert logged_in()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not logged_in()
    monkeypatch.setenv("WANDB_API_KEY", "key")
    assert logged_in()


def test_auto_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert decided("auto") == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "key")
    assert decided("auto") == "online"
    for value, mode in (("offline", "offline"), ("dryrun", "offline"), ("disabled", "off")):
        monkeypatch.setenv("WANDB_MODE", value)
        assert decided("auto") == mode
        assert decided("online") == "online"
