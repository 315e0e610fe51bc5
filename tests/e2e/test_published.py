"""Artifacts in a real server of S3's protocol: exported, imported, damaged, and followed by replicas under load."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

if find_spec("moto") is None or find_spec("pyarrow") is None:
    pytest.skip("needs moto and pyarrow", allow_module_level=True)

from pyarrow import fs

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.published import open_bucket
from clip_retrieval.build.pipeline import Options, build
from clip_retrieval.progress import Advance, Silent
from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Launch, Store
from tests.e2e.test_s3 import Proxy, credentials, moto
from tests.e2e.test_workers import wait_for
from tests.e2e.versions import WITHOUT_RED, Results, load, results, run, save, served
from tests.samples import write_collection

pytestmark = pytest.mark.e2e

__all__ = ["credentials"]
BUCKET = "replicas"
COLOURS = ("red", "blue", "green")


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """The port of moto's server, with the empty bucket ``replicas``."""
    with moto() as port:
        bucket(port).create_dir(BUCKET)
        yield port


def bucket(port: int) -> fs.S3FileSystem:
    return fs.S3FileSystem(
        access_key="me",
        secret_key="mine",
        region="us-east-1",
        endpoint_override=f"http://127.0.0.1:{port}",
        allow_bucket_creation=True,
        allow_bucket_deletion=True,
    )


@pytest.fixture
def s3(server: int, credentials: None, monkeypatch: pytest.MonkeyPatch) -> fs.S3FileSystem:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server}")
    return bucket(server)


def copied(store: Store, folder: Path) -> dict[str, str]:
    """The environment of a copy of the session's model store."""
    return {"BENTOML_HOME": str(shutil.copytree(store.environment["BENTOML_HOME"], folder))}


def test_an_artifact_goes_from_one_model_store_to_another(store: Store, s3: fs.S3FileSystem, tmp_path: Path) -> None:
    here, there = copied(store, tmp_path / "here"), {"BENTOML_HOME": str(tmp_path / "there")}
    url, version = f"s3://{BUCKET}/copies", store.tag.partition(":")[2]
    for options, last in (([], version), (["--publish", "latest"], "latest")):
        done = run("artifacts", "export", store.tag, f"{url}/", *options, **here)
        assert (done.returncode, done.stdout.strip()) == (0, f"{url}/{last}"), done.stderr
    for last in ("latest", version):
        done = run("artifacts", "import", f"{url}/{last}", **there)
        assert (done.returncode, done.stdout.split()[-1]) == (0, store.tag), done.stderr
    Artifact.open(Path(there["BENTOML_HOME"], "models", *store.tag.split(":")))
    damaged = max(s3.get_file_info(fs.FileSelector(f"{BUCKET}/copies/files")), key=lambda info: info.size)
    with s3.open_output_stream(damaged.path) as file:
        file.write(b"?" * damaged.size)
    other = {"BENTOML_HOME": str(tmp_path / "other")}
    done = run("artifacts", "import", f"{url}/latest", **other)
    assert done.returncode == 1
    assert f"{damaged.base_name}, which is" in done.stderr
    assert "differs from its hash; delete this object and export the artifact again" in done.stderr
    assert "Traceback" not in done.stderr
    s3.delete_file(damaged.path)
    assert run("artifacts", "export", store.tag, f"{url}/", **here).returncode == 0
    assert run("artifacts", "import", f"{url}/latest", **other).returncode == 0


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("import", f"s3://{BUCKET}/copies/no-such"), "nothing is published as s3://replicas/copies/no-such"),
        (("import", f"s3://{BUCKET}/copies/0000000000000000"), "there is no artifact s3://replicas/copies/0000"),
        (("import", "s3://no-such-bucket/copies/latest"), "there is no bucket 'no-such-bucket'"),
        (("export", "TAG", "s3://no-such-bucket/copies/"), "there is no bucket 'no-such-bucket'"),
        (("export", "TAG", f"s3://{BUCKET}/copies/", "--publish", "files"), "is no name of a published version"),
        (("export", "TAG", "https://host/copies/"), "is in no bucket; write s3://BUCKET/FOLDER/"),
        (("export", "TAG", "copies.tar", "--publish", "latest"), "write s3://BUCKET/FOLDER/"),
    ],
)
@pytest.mark.usefixtures("s3")
def test_what_is_wrong_is_one_sentence(store: Store, command: tuple[str, ...], said: str) -> None:
    arguments = [store.tag if each == "TAG" else each for each in command]
    done = run("artifacts", *arguments, **store.environment)
    assert done.returncode == 1
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_server_that_is_away_is_one_sentence(store: Store, s3: fs.S3FileSystem) -> None:
    away = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{reserve_port()}"}
    done = run("artifacts", "import", f"s3://{BUCKET}/copies/latest", **store.environment, **away)
    assert done.returncode == 1
    assert "s3://replicas/copies cannot be used" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_an_upload_and_a_download_that_are_cut_off_go_on(
    fake_artifact: Artifact, server: int, s3: fs.S3FileSystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Stops(Silent):
        """A person stops the command after some bytes."""

        def stage(self, label: str, total: int | None) -> AbstractContextManager[Advance]:
            return nullcontext(self.stop)

        def stop(self, _: int) -> None:
            raise KeyboardInterrupt

    url = f"s3://{BUCKET}/cut/"
    with pytest.raises(KeyboardInterrupt):
        open_bucket(url).export(fake_artifact, Stops())
    proxy = Proxy(server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    proxy.drops = 2
    open_bucket(url).export(fake_artifact, Silent())
    proxy.drops = 2
    found = open_bucket(url).fetch(fake_artifact.manifest.version, tmp_path / "found", Silent(), {})
    Artifact.open(found.path)
    proxy.close()
    assert s3.get_file_info(f"{BUCKET}/cut/versions/{fake_artifact.manifest.version}.json").is_file


def test_replicas_follow_what_is_published_and_no_request_fails(
    launch: Launch, store: Store, encoder_folder: Path, s3: fs.S3FileSystem, tmp_path: Path
) -> None:
    url = f"s3://{BUCKET}/followed"
    builder = copied(store, tmp_path / "builder")
    assert run("artifacts", "export", store.tag, f"{url}/", "--publish", "latest", **builder).returncode == 0
    servers = []
    for number in range(2):
        home = {"BENTOML_HOME": str(tmp_path / f"replica-{number}")}
        port = reserve_port()
        following = {"BENTO_CLIP_ARTIFACT": f"{url}/latest", "BENTO_CLIP_FOLLOW": f"{url}/latest", **home}
        servers.append(launch(bentoml_serve(port), port, **following))
    for server in servers:
        server.wait_until_ready()
        assert served(server) == {store.tag}
    source = write_collection(tmp_path / "squares", WITHOUT_RED)
    newer = save(build(source, encoder_folder, tmp_path / "builds", Options(), Silent()).artifact.path, builder)
    with httpx.Client(base_url=servers[0].url, timeout=30) as client:
        before = {colour: results(client, f"{colour} w1") for colour in COLOURS}
    done = run("artifacts", "export", newer, f"{url}/", **builder)
    assert done.returncode == 0, done.stderr
    with ExitStack() as loads:
        after: dict[str, list[Results]] = {colour: [before[colour]] for colour in COLOURS}
        seen = [loads.enter_context(load(server, after, clients=2)) for server in servers]
        done = run("artifacts", "export", newer, f"{url}/", "--publish", "latest", **builder)
        assert done.returncode == 0, done.stderr
        for server in servers:
            wait_for(lambda server=server: served(server) == {newer}, 60, server)  # type: ignore[misc]
    with httpx.Client(base_url=servers[1].url, timeout=30) as client:
        newest = {colour: json.dumps(results(client, f"{colour} w1")) for colour in COLOURS}
    for one in seen:
        assert one.failed == []
        assert one.answers > 50
        assert 0 in one.seen, "the first version answered"
        assert set(one.wrong) <= set(newest.values()), "and then the second, and nothing else"
        assert one.wrong
    for number, server in enumerate(servers):
        assert os.listdir(tmp_path / f"replica-{number}" / "clip-retrieval.importing") == []  # noqa: PTH208
        assert "Traceback" not in server.text()
