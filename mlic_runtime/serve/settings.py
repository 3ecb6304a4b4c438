"""How a server answers: `ServeSettings`."""

from dataclasses import dataclass
from pathlib import Path

from mlic_runtime.base.machine import available_cpus
from mlic_runtime.limits import (
    MAX_CONNECTIONS,
    MAX_QUEUE,
    MAX_RECEIVED_BYTES,
    MAX_REQUEST_BYTES,
    MAX_REQUEST_INPUTS,
)
from mlic_runtime.predict.stream import RUNS_AT_ONCE

# On the CPU, batches save nothing and delay the first answer: hybrid in int8, two threads of a busy machine, median of
# eight turns, pictures/s in batches of 1, 2, 4, 8, 16, 32: 73, 71, 71, 66, 58, 63. Few calls leave more time to others.
_CPU_BATCH = 4
_OTHER_BATCH = 16


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """What one server does and what it refuses.

    Attributes:
        token: who knows it may ask; None: everybody may.
        page: a folder of static files that `/` serves; None: the page that uses this server.
        batch_size: the most pictures in one run of the graph, >= 1; None: see `largest_batch`.
        max_wait: seconds that a picture waits for others to share its run, >= 0.
        workers: threads that decode pictures, >= 1; None means one for every CPU that this process may use.
        max_queue: pictures that are accepted and not yet answered; more are refused with 503.
        max_inputs: pictures in one request.
        max_body: bytes of a request.
        max_received: bytes of all requests together that are not yet answered; more are refused with 503.
        receive_timeout: seconds in which a whole request has to arrive.
        send_timeout: seconds in which a client has to take each part of an answer.
        header_timeout: seconds in which the head of a request has to arrive, and that a connection may be idle.
        max_connections: open connections; of more, the one that has been idle for longest is closed.
        shutdown_timeout: seconds in which accepted requests are finished after SIGTERM.
    """

    token: str | None = None
    page: Path | None = None
    batch_size: int | None = None
    max_wait: float = 0.005
    workers: int | None = None
    max_queue: int = MAX_QUEUE
    max_inputs: int = MAX_REQUEST_INPUTS
    max_body: int = MAX_REQUEST_BYTES
    max_received: int = MAX_RECEIVED_BYTES
    receive_timeout: float = 60.0
    send_timeout: float = 30.0
    header_timeout: float = 10.0
    max_connections: int = MAX_CONNECTIONS
    shutdown_timeout: float = 30.0

    def largest_batch(self, provider: str) -> int:
        """Return the most pictures in one run of the graph with an execution provider."""
        if self.batch_size is not None:
            return self.batch_size
        return _CPU_BATCH if provider in ("cpu", "openvino") else _OTHER_BATCH

    def runs_at_once(self, provider: str) -> int:
        """Return how many runs of the graph there are at once with an execution provider.

        Two on several CPUs, as in `predict_rows`. A run of OpenVINO waits for another, and a GPU's memory is for one.
        """
        return min(self.decoding_threads, RUNS_AT_ONCE) if provider == "cpu" else 1

    @property
    def decoding_threads(self) -> int:
        """How many threads decode pictures."""
        return available_cpus() if self.workers is None else self.workers
