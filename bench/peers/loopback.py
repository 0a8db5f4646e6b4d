"""A network of this process and its children alone, in which nothing but loopback exists."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


def enter() -> None:
    """For engines that listen on every interface. Call it while there is one thread."""
    # Who isn't root needs to be it in a user namespace.
    flags = _CLONE_NEWNET | (0 if os.geteuid() == 0 else _CLONE_NEWUSER)
    if ctypes.CDLL(None, use_errno=True).unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh", b"lo", _IFF_UP).ljust(40, b"\0")
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, request)
