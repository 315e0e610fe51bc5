"""What can answer queries: an artifact that is open, with an encoder that is loaded."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import ENCODER, Artifact
from clip_retrieval.encoders import import_runtime, load_inputs
from clip_retrieval.errors import ArtifactDamaged, ArtifactError, ClipRetrievalError, EncoderMismatch
from clip_retrieval.indexes.milvus_place import is_file
from clip_retrieval.page_cache import copy_to_huge_pages, read_at_random
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving import start_profile
from clip_retrieval.serving.budget import held_memory, memory_limit
from clip_retrieval.serving.engine import Engine
from clip_retrieval.serving.remote_engine import EncoderService, RemoteEngine
from clip_retrieval.serving.settings import Settings


@dataclass
class Served:
    """An artifact by its tag or path, open for searching, and the threads of its encoder."""

    artifact: str
    retriever: Retriever
    engine: Engine
    alone_s: Mapping[str, float] = field(default_factory=dict)
    """How many seconds one input of each kind, ``texts`` and ``images``, took alone; known after ``warm_up``."""

    held_by_collection: int = 0
    """What the process held more, in bytes, when the collection was open: not the pages of mapped files."""

    @property
    def version(self) -> str:
        """The version of the artifact, whatever changes there are."""
        return self.retriever.collection.manifest.version

    @property
    def sequence(self) -> int:
        """The number of the last change that the artifact holds."""
        return self.retriever.collection.manifest.sequence or 0

    @property
    def folder(self) -> Path:
        return self.retriever.collection.artifact.path

    async def warm_up(self) -> Mapping[str, float]:
        """Do once what the first query would wait for; returns ``alone_s``."""
        self.alone_s = await self.engine.warm_up(self.retriever)
        return self.alone_s


Load = Callable[..., Served]
"""``load(source, beside=None, *, verify=True)``: see ``Loader``."""


class Loader:
    """Opens artifacts for a server process."""

    def __init__(
        self,
        settings: Settings,
        encoder_threads: int,
        workers: int = 1,
        *,
        limit: Callable[[], int] = memory_limit,
        copy: Callable[[Iterable[Path]], None] = copy_to_huge_pages,
    ) -> None:
        """``limit`` gives the bytes of memory that the service may have, page cache included; ``copy`` puts copies of
        mapped files where searches find them soonest."""
        self._limit, self._copy = limit, copy
        self._settings, self._threads, self._workers = settings, encoder_threads, workers
        self._begun: tuple[Path, Future[Engine]] | None = None
        self._elsewhere: EncoderService | None = None

    def ask(self, service: EncoderService) -> None:
        """Have what is opened from now on encoded by ``service``; no encoder is loaded for it."""
        self._elsewhere = service

    def begin(self, folder: Path) -> None:
        """Load the encoder of the artifact in ``folder`` in a thread, for the call that opens this artifact first.

        Most of the work does not hold the GIL; the rest of the service is imported meanwhile. What is
        wrong is raised by that call. The artifact is not verified here: somebody has done so, or will before the
        service is ready.
        """
        try:
            artifact = Artifact.open(folder, verify=False)
            import_runtime(artifact.manifest.encoder)
        except ClipRetrievalError:
            return  # the call says it
        pool = ThreadPoolExecutor(1, "begin")
        self._begun = artifact.path, pool.submit(self._engine, artifact)
        pool.shutdown(wait=False)

    def _engine(self, artifact: Artifact) -> Engine:
        if self._elsewhere is not None:
            return RemoteEngine(lambda: load_inputs(artifact.path / ENCODER), self._elsewhere)
        return Engine(lambda: artifact.encoder(precision=self._settings.precision, threads=self._threads))

    def __call__(self, source: str, beside: Served | None = None, *, verify: bool = True) -> Served:
        """Open the artifact that ``source``, a tag or a path, means now, and load its encoder.

        The encoder of ``beside`` is used where it is the same one; it has to be if another service encodes. Raises
        ArtifactError of the kind that applies, ModelUnavailable or MissingExtra.
        """
        tag, folder = modelstore.resolve(source)
        artifact = Artifact.open_checked(folder) if verify else Artifact.open(folder, verify=False)
        artifact = replace(artifact, index_uri=self._settings.index_uri)
        check_engine(artifact, self._settings, self._workers)
        start_profile.mark("worker", "opening the artifact")
        if beside is not None and artifact.manifest.encoder == beside.engine.encoder.info:
            engine = beside.engine
        elif beside is not None and self._elsewhere is not None:
            raise EncoderMismatch(
                f"{tag} has the model {artifact.manifest.encoder.name}, and the encoder service has "
                f"{beside.engine.encoder.info.name}: start both services again with the new artifact"
            )
        else:
            path, begun = self._begun or (None, None)
            self._begun = None
            if begun is not None and path is not None and path.resolve() == artifact.path.resolve():
                engine = begun.result()
                engine.imports_have_ended()
            else:
                engine = self._engine(artifact)
        start_profile.mark("worker", "reading and compiling the model")
        before = held_memory()
        retriever = Retriever(artifact, engine.encoder)
        self._place(artifact)
        start_profile.mark("worker", "opening indexes and records")
        return Served(tag, retriever, engine, held_by_collection=max(0, held_memory() - before))

    def _place(self, artifact: Artifact) -> None:
        """Have what was opened of the artifact where searches find it soonest in the memory that there is."""
        size, limit = artifact.size(), self._limit()
        if size > limit:  # then most of what is read beside a row takes the place of another row
            read_at_random(artifact.files_read_by_rows())
        copies = self._workers * sum(file.stat().st_size for file in artifact.index_files())
        if size + 2 * copies <= limit:  # during a swap there are those of two artifacts
            try:
                self._copy(artifact.index_files())
            except OSError as error:
                raise ArtifactDamaged(
                    f"an index of {artifact.path} cannot be read ({error}); restore or build the artifact again"
                ) from error


def second_model_bytes(folder: Path, beside: Served) -> int:
    """The memory in bytes of the model of the artifact in ``folder``, about; 0 where it is that of ``beside``.

    A compiled model has its own copy of the weights. The index and the records are mapped files. Raises ArtifactError.
    """
    if Artifact.open(folder, verify=False).manifest.encoder == beside.engine.encoder.info:
        return 0
    return sum(file.stat().st_size for file in (folder / ENCODER).rglob("*") if file.is_file())


def check_engine(artifact: Artifact, settings: Settings, workers: int) -> None:
    """Raise ArtifactError where the index of ``artifact`` cannot be served by so many workers with these settings."""
    if not artifact.is_in_milvus:
        return
    uri = settings.index_uri or artifact.manifest.images.spec.uri or ""
    if is_file(uri) and workers > 1:
        raise ArtifactError(
            f"{uri} is a Milvus Lite, which one process can open, and the service has {workers} workers; "
            "set BENTO_CLIP_WORKERS=1, or put the index into a Milvus cluster"
        )
    if settings.changes is not None and not artifact.has_vectors:
        raise ArtifactError(
            f"{artifact.path} has no vectors, which a collection that takes changes needs: unset BENTO_CLIP_CHANGES, "
            "or serve the artifact that it was exported from"
        )
