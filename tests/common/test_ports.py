"""The port is free, and not among those that the system hands out by itself."""

import socket
from pathlib import Path

import pytest

from kogpt.common.ports import free_port


def test_the_port_is_free_and_nobody_gets_it_by_chance() -> None:
    port = free_port()
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))
    ranges = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if not ranges.exists():
        pytest.skip("this system does not say which ports it hands out")
    assert 1024 <= port < int(ranges.read_text().split()[0])
