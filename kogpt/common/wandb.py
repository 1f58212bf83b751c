"""Weights & Biases for kogpt and preprocess: online, offline, or off, without questions or console output.

In: the value of --wandb and the environment. Out: a mode, and W&B's settings. `auto` follows WANDB_MODE if it is set,
and otherwise is online if there is an API key.
"""

import netrc
import os
from typing import Any, Literal
from urllib.parse import urlparse

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
        mode = _AUTO.get(os.environ.get("WANDB_MODE", ""), "online" if logged_in() else "offline")
    assert mode != "auto"
    return mode


def logged_in() -> bool:
    """Whether there is an API key for the W&B server: in the environment or in netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
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
