"""Counts the processes of a run at the coordinator's port before JAX takes it over, so that one that never comes is named.

JAX 0.10.2 alone ends in an abort that names nobody (too few processes) or in a segmentation fault (port in use).
"""

import contextlib
import socket
import time

from core.config import ConfigError

# `TANDEM_ARRIVAL_SECONDS` changes it; starts on a busy cluster lie minutes apart.
ARRIVAL_SECONDS = 300.0
_RETRY_SECONDS = 0.1
_GREETING = "tandem"


class Absent(RuntimeError):
    """A process of the run did not come in time; the message names it."""


def meet(coordinator: str, count: int, index: int, seconds: float = ARRIVAL_SECONDS) -> None:
    """Returns when all processes have come to the coordinator, whose port is then free again.

    Args:
        coordinator: `host:port` of process 0.
        count: processes of the run.
        index: of this process, from 0.
        seconds: how long to wait for the last one.

    Raises:
        Absent: not all came in time; every process that did gets the same message.
        ConfigError: the port is in use, or two processes have the same index.
    """
    host, _, port = coordinator.rpartition(":")
    if index == 0:
        _receive(int(port), count, seconds)
    else:
        _report((host.strip("[]"), int(port)), count, index, seconds)


def _receive(port: int, count: int, seconds: float) -> None:
    """Process 0: hears everybody, then tells everybody `go`, or what is wrong."""
    deadline, arrived = time.monotonic() + seconds, {}
    try:
        # Without SO_REUSEPORT, which would let two runs share the port; SO_REUSEADDR is set, so that a restart need not wait.
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        server = socket.create_server(("", port), family=family, backlog=count, dualstack_ipv6=both)
    except OSError as error:
        raise ConfigError(
            f"port {port} of the coordinator cannot be opened ({error.strerror}); is another run using it? Choose another port "
            "(in TANDEM_COORDINATOR, --port, or JAX_COORDINATOR_PORT where a cluster is recognised)."
        ) from error
    with server, contextlib.ExitStack() as connections:
        while len(arrived) < count - 1:
            server.settimeout(max(deadline - time.monotonic(), 1e-3))
            try:
                connection = connections.enter_context(server.accept()[0])
            except TimeoutError:
                _tell_all(arrived, message := _missing(set(range(1, count)) - set(arrived), count, seconds))
                raise Absent(message) from None
            words = _read(connection)
            if len(words) != 3 or words[0] != _GREETING:
                continue  # a stranger: a port scanner, a health check
            if words[1] != str(count) or words[2] in map(str, arrived):
                message = (
                    f"process {words[2]} of {words[1]} came to a run of {count} processes where {[0, *sorted(arrived)]} had arrived; "
                    "give each another TANDEM_PROCESS, and all the same TANDEM_PROCESSES."
                )
                _tell_all(arrived | {-1: connection}, message)
                raise ConfigError(message)
            arrived[int(words[2])] = connection
        _tell_all(arrived, "go")


def _report(address: tuple[str, int], count: int, index: int, seconds: float) -> None:
    """Any other process: tries until the coordinator is there, says its index, waits for the answer."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection(address, timeout=max(deadline - time.monotonic(), 1e-3)) as connection:
                connection.sendall(f"{_GREETING} {count} {index}\n".encode())
                # The coordinator may have begun to wait later than this process; its answer comes a little after its own deadline.
                connection.settimeout(seconds + 10)
                answer = " ".join(_read(connection))
        except OSError:
            answer = ""
        if answer == "go":
            return
        if answer:
            raise Absent(answer)
        if time.monotonic() > deadline:
            raise Absent(f"process 0 of {count} did not come to {address[0]}:{address[1]} within {seconds:.0f} s.")
        time.sleep(_RETRY_SECONDS)


def _missing(indices: set[int], count: int, seconds: float) -> str:
    who = ", ".join(map(str, sorted(indices)))
    return f"process {who} of {count} did not come within {seconds:.0f} s (TANDEM_ARRIVAL_SECONDS); look at its output."


def _read(connection: socket.socket) -> list[str]:
    """The words of one line; none if the other side is silent for some seconds or leaves."""
    if connection.gettimeout() is None:
        connection.settimeout(5)
    data = b""
    with contextlib.suppress(OSError):
        while not data.endswith(b"\n") and len(data) < 4096 and (chunk := connection.recv(4096)):
            data += chunk
    return data.decode(errors="replace").split()


def _tell_all(connections: dict[int, socket.socket], message: str) -> None:
    for connection in connections.values():
        with contextlib.suppress(OSError):
            connection.sendall(f"{message}\n".encode())
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(5)
            connection.recv(1)  # they close first, so that no half-closed connection keeps the port
