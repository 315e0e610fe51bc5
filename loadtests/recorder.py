"""Brings the samples of every Locust process into one file. Loads neither numpy nor the service.

A worker sends its samples with its statistics (``report_to_master``). The master, or a Locust without workers, writes
them to ``samples.bin`` in the folder of the option ``--record``. Without that option nothing is kept.
The clocks of the machines must agree, because a sample's time says to which step it belongs.
"""

from pathlib import Path
from typing import Any, BinaryIO

from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtests.samples import SAMPLES_FILE, STAGES, Kind, Outcome, Timing, pack

FLUSH_BYTES = 64 * 1024


class Recorder:
    """Takes samples from the users of one process."""

    def __init__(self, environment: Environment, folder: Path | None) -> None:
        self._environment = environment
        self._buffer = bytearray()
        self._file: BinaryIO | None = None
        self._sends = isinstance(environment.runner, WorkerRunner)
        self._keeps = self._sends or folder is not None
        events = environment.events
        if self._sends:
            events.report_to_master.add_listener(self._send)
        elif folder is not None:
            self._file = (folder / SAMPLES_FILE).open("ab")
            events.quit.add_listener(self._close)
            if isinstance(environment.runner, MasterRunner):
                events.worker_report.add_listener(self._receive)

    def add(self, at: float, kind: Kind, outcome: Outcome, response_ms: float, timing: Timing) -> None:
        """Keep a sample, and put its stages into Locust's own statistics.

        The rows have the type ``STAGE`` and are in microseconds, because Locust's resolution is one unit. They do not
        pass through the request event, so that ``Aggregated`` counts requests and nothing else.
        """
        if self._keeps:
            self._buffer += pack(at, kind, outcome, response_ms, timing)
            if self._file is not None and len(self._buffer) >= FLUSH_BYTES:
                self._flush()
        if outcome is Outcome.answered:
            for stage in STAGES:
                if (ms := timing.stage(stage)) == ms:
                    self._environment.stats.get(f"{kind.name} {stage}, µs", "STAGE").log(round(ms * 1000), 0)
        elif outcome is Outcome.rejected:
            self._environment.stats.get(kind.name, "REJECTED").log(round(response_ms), 0)

    def _send(self, client_id: str, data: dict[str, Any]) -> None:  # noqa: ARG002 Locust passes it by name
        data["samples"] = bytes(self._buffer)
        self._buffer.clear()

    def _receive(self, client_id: str, data: dict[str, Any]) -> None:  # noqa: ARG002
        self._buffer += data.get("samples", b"")
        self._flush()

    def _flush(self) -> None:
        if self._file is not None:
            self._file.write(self._buffer)
            self._file.flush()
            self._buffer.clear()

    def _close(self, **_: object) -> None:
        if self._file is not None:
            self._flush()
            self._file.close()
            self._file = None
