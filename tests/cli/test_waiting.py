"""What the command becomes when its service is ready: it passes signals on and ends as the service does."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

COMMAND = """
import os, signal, subprocess, sys
from clip_retrieval.cli.waiting import STOPS
service = subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True, stdout=subprocess.PIPE)
service.stdout.readline()
signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
if sys.argv[2] == "early":
    os.kill(os.getpid(), signal.SIGTERM)
else:
    print("ready", flush=True)
os.execv(sys.executable, [sys.executable, "-m", "clip_retrieval.cli.waiting", str(service.pid), "bento-clip", "serve"])
"""
DEAF = "import time; print(flush=True); time.sleep(60)"
POLITE = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(3)); print(flush=True); time.sleep(60)"
)
BRIEF = "import sys; print(flush=True); sys.exit(4)"


def command(service: str, when: str = "later") -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, service, when],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_service_whose_status_is_that_of_the_command(number: signal.Signals) -> None:
    with command(POLITE) as waiting:
        assert waiting.stdout is not None
        waiting.stdout.readline()
        waiting.send_signal(number)
        assert waiting.communicate(timeout=30) == ("", "")
    assert waiting.returncode == 3


def test_a_signal_that_comes_before_the_command_waits_is_not_lost() -> None:
    with command(POLITE, "early") as waiting:
        assert waiting.communicate(timeout=30) == ("", "")
    assert waiting.returncode == 3


def test_a_service_that_ends_by_itself_ends_the_command() -> None:
    with command(BRIEF) as waiting:
        assert waiting.communicate(timeout=30) == ("ready\n", "")
    assert waiting.returncode == 4


def test_a_signal_that_ended_the_service_is_told() -> None:
    with command(DEAF, "early") as waiting:
        assert waiting.communicate(timeout=30) == ("", "the service was ended by SIGTERM\n")
    assert waiting.returncode == 128 + signal.SIGTERM
