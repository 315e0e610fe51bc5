"""What the commands that change a running service make of their options; ``tests/e2e/test_live.py`` runs them."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, cast

import pytest
import typer

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.cli.change_options import metadata_of
from clip_retrieval.client import Client
from clip_retrieval.contract.base import ErrorBody
from clip_retrieval.contract.changes import Changed
from clip_retrieval.contract.collection import FieldInfo, FieldsAnswer
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import StorageFull
from clip_retrieval.live.compacting import compact_log
from clip_retrieval.live.log import LOG_FILE, ChangeLog
from clip_retrieval.progress import Silent
from tests.cli.test_app import Cli, cli
from tests.live.bases import live_image

__all__ = ["cli"]


class Fields:
    """A service with a field of each type, and nothing else."""

    def fields(self) -> FieldsAnswer:
        kinds: dict[str, Any] = {"year": "number", "indoor": "boolean", "place": "text"}
        return FieldsAnswer(fields=[FieldInfo(name=n, type=t, count=1, values=[]) for n, t in kinds.items()])


CLIENT = cast("Client", Fields())


def test_a_value_has_the_type_of_its_field_and_a_new_field_has_text() -> None:
    given = ["year=2024", "indoor=TRUE", "place=a=b", "new=2024", "empty="]
    expected = {"year": 2024, "indoor": True, "place": "a=b", "new": "2024", "empty": ""}
    assert metadata_of(given, CLIENT) == expected
    assert metadata_of(["year=1.5"], CLIENT) == {"year": 1.5}


def test_an_empty_value_removes_a_field_where_fields_can_be_removed() -> None:
    assert metadata_of(["year=", "place=x"], CLIENT, removes=True) == {"year": None, "place": "x"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["year"], "year is not FIELD=VALUE"),
        (["=1"], "is not FIELD=VALUE"),
        (["year=x"], "year is a number, not x"),
        (["indoor=1"], "indoor is true or false, not 1"),
        (["place=a", "place=b"], "place is given twice"),
    ],
)
def test_a_value_that_cannot_be_read_is_said(given: list[str], words: str) -> None:
    with pytest.raises(typer.BadParameter, match=words):
        metadata_of(given, CLIENT)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["add", "a.jpg", "b.jpg", "--id", "x"], "one id is for one file"),
        (["add", "."], "is a folder"),
        (["add", "a.jpg", "--split", "x"], "'x' is not one of"),
        (["edit", "a", "--caption", "b", "--no-captions"], "not both"),
        (["add", "a/x.jpg", "b/x.jpg", "--replace"], "a/x.jpg and b/x.jpg would both be x.jpg"),
        (["add", "a/u\u0308.jpg", "b/\u00fc.jpg"], "would both be \u00fc.jpg"),
        (["add", "a.jpg", "--id", ""], "it is empty, as a variable that is not set"),
        (["edit", "", "--caption", "b"], "it is empty, as a variable that is not set"),
        (["remove", "a", ""], "it is empty, as a variable that is not set"),
        (["serve", "--changes", ""], "it is empty, as a variable that is not set"),
        (["serve", ""], "it is empty, as a variable that is not set"),
        (["swap", ""], "it is empty, as a variable that is not set"),
        (["build", "", "--model", "demo"], "it is empty, as a variable that is not set"),
        (["compact", "--changes", ""], "it is empty, as a variable that is not set"),
        (["compact", "tag", "--at", "http://127.0.0.1:9"], "a service compacts what it serves; leave the tag out"),
        (["compact", "--keep-changes", "--at", "http://127.0.0.1:9"], "a service drops the changes"),
    ],
)
def test_options_that_make_no_sense_are_refused(cli: Cli, arguments: list[str], words: str) -> None:
    done = cli(*arguments)
    assert done.status == 2
    assert words in " ".join(done.err.replace("│", " ").split())


def test_a_name_that_is_not_utf_8_is_the_outcome_of_its_file_alone(cli: Cli, tmp_path: Path) -> None:
    """A file that another system wrote may be called so."""
    name = "latin\udce9.jpg"
    for file in (name, "a.jpg"):
        (tmp_path / file).write_bytes(b"x")
    AtTheLimit.left = 0
    with serving() as url:
        done = cli("add", tmp_path / name, tmp_path / "a.jpg", "--at", url)
        edited = cli("edit", name, "--caption", "x", "--at", url)
    assert (done.status, done.out) == (1, "a.jpg\n")
    for err in (done.err, edited.err):
        assert "image_id: 'latin\\udce9.jpg' is not UTF-8; rename the file, or give another id" in err
        assert "Traceback" not in err
    assert edited.status == 1


def test_an_edit_of_nothing_is_refused(cli: Cli) -> None:
    done = cli("edit", "a")
    assert (done.status, done.out) == (1, "")
    assert "there is nothing to change" in done.err


def test_a_service_that_is_not_there_is_said_once(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    done = cli("add", tmp_path / "a.jpg", tmp_path / "a.jpg", "--at", "http://127.0.0.1:9")
    assert done.status == 1
    assert done.err.count("no answer") == 1


class AtTheLimit(BaseHTTPRequestHandler):
    """A service that refuses six requests at a limit, and takes the others."""

    left = 6

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        refused = AtTheLimit.left > 0
        AtTheLimit.left -= 1
        answer = ErrorBody(error="Too Many Requests", detail="the limit is reached") if refused else CHANGED
        body = answer.model_dump_json().encode()
        self.send_response(429 if refused else 201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the library's own
        pass


@contextmanager
def serving() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), AtTheLimit)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


CHANGED = Changed(image_id="a.jpg", sequence=1, created=True, changed=True, etag="x")


@pytest.mark.parametrize("command", ["add", "remove"])
def test_a_command_of_many_requests_waits_out_a_limit(cli: Cli, tmp_path: Path, command: str) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    AtTheLimit.left = 6
    with serving() as url:
        done = cli(command, tmp_path / "a.jpg", "--at", url)
    assert done.err.count("the limit is reached; waiting for at most 10 minutes") == 1
    assert done.err.count("the limit is reached") == 1, "a wait is said once, and it is not the outcome"
    assert AtTheLimit.left < 0
    if command == "add":
        assert (done.status, done.out) == (0, "a.jpg\n")


def test_a_compaction_that_was_killed_before_it_dropped_the_changes_is_ended_by_the_next(
    cli: Cli, stored_tag: str, tmp_path: Path
) -> None:
    """Else what was removed would stay in the folder, and the log would never become shorter."""
    info, place = FakeEncoder().info, tmp_path / "changes"

    def count() -> int:
        with closing(ChangeLog.open(place / LOG_FILE, fingerprint=info.fingerprint, dim=info.dim)) as log:
            return len(log.after(0))

    with (
        closing(ChangeLog.open(place / LOG_FILE, fingerprint=info.fingerprint, dim=info.dim)) as log,
        log.transaction() as transaction,
    ):
        transaction.put(live_image("new", 1, captions=["a ruby"]))
    tag = cli("compact", stored_tag, "--changes", place, "--keep-changes").out.strip()
    assert count() == 1
    done = cli("compact", tag, "--changes", place)
    assert (done.status, count()) == (0, 0)
    assert "there is nothing to compact" in done.err


def test_what_a_compaction_cannot_save_is_left_nowhere(fake_artifact: Artifact, tmp_path: Path) -> None:
    """A service tries again and again, with more changes each time."""
    info = FakeEncoder().info

    def full(_: Artifact) -> str:
        raise StorageFull("the disk is full")

    with closing(ChangeLog.open(tmp_path / "changes" / LOG_FILE, fingerprint=info.fingerprint, dim=info.dim)) as log:
        with log.transaction() as transaction:
            transaction.put(live_image("new", 1, captions=["a ruby"]))
        with pytest.raises(StorageFull):
            compact_log(fake_artifact, log, tmp_path / "builds", Silent(), save=full)
        assert len(log.after(0)) == 1
    assert list((tmp_path / "builds").iterdir()) == []
