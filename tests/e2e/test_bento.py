"""The Bento as a person uses it: made twice it is the same, and it serves its own artifact from any folder."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
import yaml

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.writer import write_artifact
from clip_retrieval.client import Client
from scripts.common.paths import ROOT
from scripts.common.server import reserve_port
from tests.e2e.conftest import SAVE, Launch, Store

pytestmark = pytest.mark.e2e


def run(command: list[str], environment: Mapping[str, str]) -> str:
    """The last word that a command prints."""
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def make(home: Path, tag: str) -> Path:
    """The folder of the Bento that is made with a model store."""
    bento = run([sys.executable, "-m", "scripts.bento", "--artifact", tag], {"BENTOML_HOME": str(home)})
    return home / "bentos" / bento.replace(":", "/")


def content(bento: Path) -> dict[str, str]:
    """The hash of every file; of ``bento.yaml`` without the time of creation, which is all that may differ."""
    files = {path.relative_to(bento).as_posix(): path.read_bytes() for path in bento.rglob("*") if path.is_file()}
    info = yaml.safe_load(files["bento.yaml"])
    del info["creation_time"]
    files["bento.yaml"] = json.dumps(info, default=str).encode()
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


@pytest.fixture(scope="module")
def homes(store: Store, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two model stores that hold the same artifact."""
    folder = tmp_path_factory.mktemp("homes")
    return [Path(shutil.copytree(store.environment["BENTOML_HOME"], folder / name)) for name in ("one", "two")]


@pytest.fixture(scope="module")
def bento(homes: list[Path], store: Store) -> Path:
    return make(homes[0], store.tag)


def test_two_builds_have_the_same_content(bento: Path, homes: list[Path], store: Store) -> None:
    again = make(homes[1], store.tag)
    assert again.name == bento.name
    assert content(again) == content(bento)


def test_the_version_and_the_labels_say_which_artifact_is_inside(bento: Path, store: Store) -> None:
    version = store.tag.partition(":")[2]
    assert bento.name.startswith(f"{version}-")
    info = yaml.safe_load((bento / "bento.yaml").read_text())
    assert info["labels"]["artifact"] == version
    assert [model["tag"] for model in info["models"]] == [store.tag]


def test_it_serves_its_own_artifact_from_any_folder_after_a_newer_one_was_made(
    bento: Path, homes: list[Path], store: Store, fake_artifact: Artifact, launch: Launch, tmp_path: Path
) -> None:
    manifest = fake_artifact.manifest
    newer = write_artifact(
        tmp_path / "newer",
        version="0123456789abcdef",
        encoder=manifest.encoder,
        data=manifest.data,
        images=manifest.images,
        captions=manifest.captions,
        fill=lambda _: None,
        parent=fake_artifact,
    )
    run([sys.executable, "-c", SAVE, str(newer.path)], {"BENTOML_HOME": str(homes[0])})
    tag, port, elsewhere = f"{bento.parent.name}:{bento.name}", reserve_port(), tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = ["env", "-C", str(elsewhere), sys.executable, "-m", "bentoml", "serve", tag]
    command += ["--host", "127.0.0.1", "-p", str(port)]
    settings = {"BENTOML_HOME": str(homes[0]), "BENTO_CLIP_LOG_FORMAT": "json"}
    server = launch(command, port, **settings).wait_until_ready()
    with Client(server.url) as client:
        assert client.info().artifact == store.tag
        assert client.search_images("a red square").results
    deadline = time.monotonic() + 10  # a line of the log may come after the answer
    while "POST /search/images 200" not in [json.loads(line)["message"] for line in server.text().splitlines()]:
        assert time.monotonic() < deadline, server.text()
        time.sleep(0.05)
    server.terminate()
    assert server.wait() == 0, server.text()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/livez", trust_env=False)


def test_the_launcher_serves_it_as_in_the_image(
    bento: Path, homes: list[Path], store: Store, launch: Launch, tmp_path: Path
) -> None:
    port, elsewhere = reserve_port(), tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = ["env", "-C", str(elsewhere), sys.executable, "-m", "clip_retrieval.serving.launch"]
    settings = {"BENTOML_HOME": str(homes[0]), "BENTOML_HOST": "127.0.0.1", "BENTOML_PORT": str(port)}
    server = launch([*command, "--bento", str(bento)], port, PYTHONPATH=str(bento / "src"), **settings)
    with Client(server.wait_until_ready().url) as client:
        assert client.info().artifact == store.tag
        assert client.search_images("a red square").results
    server.terminate()
    assert server.wait() == 0, server.text()


def test_bentoml_build_typed_by_hand_takes_the_newest_artifact(store: Store, tmp_path: Path) -> None:
    home = Path(shutil.copytree(store.environment["BENTOML_HOME"], tmp_path / "home"))
    command = [sys.executable, "-m", "bentoml", "build", "--output", "tag"]
    tag = run(command, {"BENTOML_HOME": str(home)}).removeprefix("__tag__:")
    folder = home / "bentos" / tag.replace(":", "/")
    info = yaml.safe_load((folder / "bento.yaml").read_text())
    assert info["service"] == "clip_retrieval.service:ClipRetrieval"
    assert [(model["tag"], model["alias"]) for model in info["models"]] == [(store.tag, "clip-retrieval:latest")]
    assert (folder / "src" / "clip_retrieval" / "service.py").is_file()
    pinned = (folder / "env" / "python" / "requirements.txt").read_text()
    assert "bentoml==" in pinned
    assert "torch==" not in pinned


def test_bentoml_build_without_an_artifact_says_how_to_make_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bentoml", "build"]
    environment = {**os.environ, "BENTOML_HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "bento-clip build SOURCE --model demo" in done.stderr
    assert "Traceback" not in done.stderr
