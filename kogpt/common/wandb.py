"""Weights & Biases for kogpt and preprocess: online, offline, or off, without questions or console output.

In: the value of --wandb and the environment. Out: a mode, and W&B's settings. `auto` follows WANDB_MODE if it is set,
and otherwise is online if W&B finds an API key.
"""

import os
from pathlib import Path
from typing import Any, Literal

INIT_SECONDS = 20
"""Wait for a server."""
FINISH_SECONDS = 600
"""Wait for a server at the end. What it has not taken by then stays on disk."""
OFFLINE_SECONDS = 120
"""Wait for W&B's own process on this machine."""
Mode = Literal["auto", "online", "offline", "off"]
_AUTO: dict[str, Mode] = {"online": "online", "offline": "offline", "dryrun": "offline", "disabled": "off"}


def decided(mode: Mode) -> Literal["online", "offline", "off"]:
    """The mode, with `auto` resolved."""
    if mode == "auto":
        mode = _AUTO.get(os.environ.get("WANDB_MODE", "")) or ("online" if logged_in() else "offline")
    assert mode != "auto"
    return mode


def logged_in() -> bool:
    """Whether W&B would find an API key for its server: in the environment, in netrc, or in its settings files."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    import wandb
    from wandb.sdk.lib.wbauth import read_netrc_auth

    # Not W&B's own settings of this process: once they are read, it ignores what is set in the environment afterwards.
    folder = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser()
    settings = wandb.Settings(silent=True, settings_system=str(folder / "settings"))
    try:
        settings.update_from_system_settings()
        settings.update_from_env_vars(dict(os.environ))
        return bool(settings.api_key or settings.identity_token_file or read_netrc_auth(host=settings.base_url))
    except (wandb.Error, ValueError):  # a key or an address that W&B refuses
        return False


def quiet_settings(mode: Literal["online", "offline"]) -> Any:
    """W&B's settings: no console output, and a limited wait for a server; a busy machine may take longer by itself."""
    import wandb

    seconds = INIT_SECONDS if mode == "online" else OFFLINE_SECONDS
    return wandb.Settings(
        init_timeout=seconds,
        finish_timeout=FINISH_SECONDS,
        finish_timeout_raises=True,
        console="off",
        silent=True,
        quiet=True,
    )
