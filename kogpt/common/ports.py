"""Find a free port of this machine, for a process that listens there a little later."""

import socket
from contextlib import suppress
from random import SystemRandom


def free_port() -> int:
    """A free port below those that the system hands out by itself, so that nobody gets it in the meantime."""
    while True:
        port = SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port
