"""How kogpt and preprocess use Weights & Biases: online, offline or off, without a prompt and without console output.

In: what --wandb says and the environment. Out: a mode, and W&B's settings. A mode of `auto` follows WANDB_MODE, or
else whether there is an API key.
"""

import netrc
import os
from typing import Any, Literal
from urllib.parse import urlparse

INIT_SECONDS = 20
Mode = Literal["auto", "online", "offline", "off"]
_AUTO: dict[str, Mode] = {"online": "online", "offline": "offline", "dryrun": "offline", "disabled": "off"}


def decided(mode: Mode) -> Literal["online", "offline", "off"]:
    """The mode without `auto`."""
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


def quiet_settings() -> Any:
    """W&B's settings: nothing on the console, and no endless wait for a server."""
    import wandb

    return wandb.Settings(init_timeout=INIT_SECONDS, console="off", silent=True, quiet=True)
