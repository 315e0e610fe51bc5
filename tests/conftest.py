"""Fixtures that every test may use. ``samples.py`` describes the collection that they are made of.

Nothing outside temporary folders is read or written: the model store and the caches are moved there before bentoml,
which reads ``BENTOML_HOME`` when it is imported, can be. Child processes inherit the same environment.

    collection         a folder of 24 coloured squares with captions.csv            (session; do not change it)
    encoder_folder     the fake encoder's folder, as prepare_encoder makes one      (session; do not change it)
    fake_artifact      the artifact of that collection with that encoder            (session; do not change it)
    retriever          a Retriever over fake_artifact                               (session)
    artifact_copy      a copy of fake_artifact to damage, move or save              (one test)
    cache_home         an empty cache folder                                        (one test)
    model_store        an empty BentoML model store: the function that lists it     (one test)
    stored_tag         the tag of a copy of fake_artifact in that store             (one test)
"""

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

_HOME = tempfile.mkdtemp(prefix="bento-clip-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ |= {
    "BENTOML_HOME": f"{_HOME}/bentoml",
    "BENTOML_DO_NOT_TRACK": "True",
    "XDG_CACHE_HOME": f"{_HOME}/cache",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",  # threads that wait for each other slow small searches down where cores are shared
}

import psutil
import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build.pipeline import Options, build
from clip_retrieval.encoders import INFO_FILE
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.progress import Silent
from clip_retrieval.search.retriever import Retriever
from tests.samples import write_collection

MANY_OPEN_FILES = 300
"""Linux allows a process 1,024."""


@pytest.fixture(scope="session")
def most_open_files() -> list[int]:
    """One number: above so many open files the garbage collector looks for those that nobody needs."""
    return [MANY_OPEN_FILES]


@pytest.fixture(autouse=True)
def few_open_files(most_open_files: list[int]) -> Iterator[None]:
    """Objects that refer to each other keep their mapped files open until the garbage collector looks at them.

    That takes a third of a second, so it is done when there are many more than the last time.
    """
    yield
    if psutil.Process().num_fds() > most_open_files[0]:
        gc.collect()
        most_open_files[0] = psutil.Process().num_fds() + MANY_OPEN_FILES


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 images with 48 captions; see ``samples.py``."""
    return write_collection(tmp_path_factory.mktemp("data") / "squares")


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fake encoder in a folder, ready to be built with."""
    folder = tmp_path_factory.mktemp("encoder")
    (folder / INFO_FILE).write_text(FakeEncoder().info.model_dump_json())
    return folder


@pytest.fixture(scope="session")
def fake_artifact(collection: Path, encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The artifact of ``collection`` with the fake encoder, built once."""
    return build(collection, encoder_folder, tmp_path_factory.mktemp("builds"), Options(), Silent()).artifact


@pytest.fixture(scope="session")
def retriever(fake_artifact: Artifact) -> Retriever:
    """A retriever over ``fake_artifact``."""
    return Retriever(fake_artifact, FakeEncoder())


@pytest.fixture
def artifact_copy(fake_artifact: Artifact, tmp_path: Path) -> Artifact:
    """A copy of ``fake_artifact`` that a test may damage, move or save."""
    return Artifact.open(Path(shutil.copytree(fake_artifact.path, tmp_path / "artifact")))


@pytest.fixture
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for the caches of one test: prepared encoders and unfinished builds."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def model_store() -> Iterator[Callable[[], list[str]]]:
    """An empty BentoML model store for one test; call the fixture's value for the tags that are in it."""
    import bentoml

    def tags() -> list[str]:
        return [str(model.tag) for model in bentoml.models.list()]

    for tag in tags():
        bentoml.models.delete(tag)
    yield tags
    for tag in tags():
        bentoml.models.delete(tag)


@pytest.fixture
def stored_tag(model_store: Callable[[], list[str]], artifact_copy: Artifact) -> str:
    """The tag of a copy of ``fake_artifact`` in the BentoML model store of this test."""
    from clip_retrieval.artifacts import modelstore

    return modelstore.save(artifact_copy)
