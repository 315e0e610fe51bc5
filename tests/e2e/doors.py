"""The sockets at which processes can be reached."""

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

ACCEPTS = 0x10000
"""The flag of a socket that listens, in /proc/net/unix (``__SO_ACCEPTCON``, include/linux/net.h)."""


@dataclass(frozen=True)
class Door:
    """A socket that somebody may connect to or write to: a TCP or UDP port, or a path."""

    kind: str
    address: str
    port: int = 0


def doors(processes: Iterable[psutil.Process]) -> set[Door]:
    """Every listening socket and every bound datagram socket of these processes."""
    found = set()
    table = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    listening = {row[7] for row in table if len(row) > 7 and int(row[3], 16) & ACCEPTS}
    for process in processes:
        for one in process.net_connections(kind="all"):
            if one.family == socket.AF_UNIX:
                if one.laddr and (one.type == socket.SOCK_DGRAM or str(one.laddr) in listening):
                    found.add(Door("unix", str(one.laddr)))
            elif one.status == psutil.CONN_LISTEN or (one.type == socket.SOCK_DGRAM and one.laddr):
                kind = "udp" if one.type == socket.SOCK_DGRAM else "tcp"
                found.add(Door(kind, one.laddr.ip, one.laddr.port))
    return found
