"""Ports of this machine for the workers of a cluster."""

import contextlib
import socket


def free_ports(count: int) -> list[int]:
    """Returns ports that nobody uses."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]
