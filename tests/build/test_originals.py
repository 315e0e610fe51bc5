"""A build that keeps the original files: all of them, byte for byte, with what cameras wrote; and what it refuses."""

import hashlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.originals import bucket_of, is_bucket
from clip_retrieval.artifacts.transfer import export_artifact, import_artifact
from clip_retrieval.build.check import check
from clip_retrieval.build.originals import OriginalHashes, gather_originals
from clip_retrieval.build.pipeline import BuildOutcome, Options, build
from clip_retrieval.build.seen_files import SeenFiles
from clip_retrieval.datasets.file_blob import FileBlob
from clip_retrieval.errors import ArtifactDamaged, SourceError
from clip_retrieval.images.decode import Limits, content_hash, decode_image
from clip_retrieval.progress import Silent
from clip_retrieval.records import ValidImage
from tests.samples import MemoryBlob, image_of, png, square, write_collection

NAMES = ("red-bright.png", "red-soft.png", "blue-bright.png")
KEEP = Options(keep_originals=True)
GPS = 0x8825


def photograph() -> bytes:
    """A JPEG with a position in its EXIF."""
    image = square("green", size=30)
    exif = Image.Exif()
    exif.get_ifd(GPS).update({1: "N", 2: (59.0, 54.0, 50.0)})
    file = BytesIO()
    image.save(file, "JPEG", exif=exif)
    return file.getvalue()


def content(artifact: Artifact, image_id: str) -> bytes:
    originals = artifact.originals()
    assert originals is not None
    with artifact.store() as store:
        row = store.row_of(image_id)
    assert row is not None
    part = originals.find(originals.hash_of(row) or "")
    assert part is not None
    return b"".join(part.chunks())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = write_collection(tmp_path / "source", NAMES)
    (folder / "red-soft.png").write_bytes((folder / "red-bright.png").read_bytes())
    return folder


def built(source: Path, encoder_folder: Path, workspace: Path, options: Options = KEEP) -> BuildOutcome:
    return build(source, encoder_folder, workspace, options, Silent())


def test_every_original_is_kept_byte_for_byte_and_equal_ones_once(
    source: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    outcome = built(source, encoder_folder, tmp_path / "builds")
    artifact = Artifact.open_checked(outcome.artifact.path)
    for name in NAMES:
        assert content(artifact, name) == (source / name).read_bytes()
    size = sum((source / name).stat().st_size for name in NAMES[1:])
    assert outcome.notes[0] == f"originals: 2 files, {size / 1e6:,.1f} MB, kept in the artifact"
    assert len(list(filter(is_bucket, artifact.manifest.files))) == 2
    plain = built(source, encoder_folder, tmp_path / "builds", Options()).artifact
    assert plain.manifest.version != artifact.manifest.version
    assert plain.originals() is None


def test_an_original_has_what_a_camera_wrote_into_it(encoder_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "photo.jpg").write_bytes(photograph())
    artifact = built(folder, encoder_folder, tmp_path / "builds").artifact
    with Image.open(BytesIO(content(artifact, "photo.jpg"))) as opened:
        assert opened.getexif().get_ifd(GPS)[1] == "N"


def test_other_bytes_of_the_same_pixels_are_another_version(source: Path, encoder_folder: Path, tmp_path: Path) -> None:
    first = built(source, encoder_folder, tmp_path / "builds").artifact
    image_of(NAMES[2]).save(source / NAMES[2], "PNG", compress_level=0)
    second = built(source, encoder_folder, tmp_path / "builds").artifact
    assert first.manifest.version != second.manifest.version
    assert first.manifest.data.fingerprint == second.manifest.data.fingerprint
    assert content(second, NAMES[2]) == (source / NAMES[2]).read_bytes()


def test_an_export_carries_the_originals_and_an_import_checks_them(
    source: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    artifact = built(source, encoder_folder, tmp_path / "builds").artifact
    export_artifact(artifact, tmp_path / "a.tar", lambda _: None)
    imported = import_artifact(tmp_path / "a.tar", tmp_path / "imported", lambda _: None)
    assert content(imported, NAMES[0]) == (source / NAMES[0]).read_bytes()
    bucket = artifact.path / bucket_of(hashlib.sha256((source / NAMES[0]).read_bytes()).hexdigest())
    bucket.write_bytes(bucket.read_bytes()[:-1] + b"?")
    export_artifact(artifact, tmp_path / "b.tar", lambda _: None)
    with pytest.raises(ArtifactDamaged, match="differs from its hash"):
        import_artifact(tmp_path / "b.tar", tmp_path / "other", lambda _: None)
    bucket.unlink()
    with pytest.raises(ArtifactDamaged, match="is missing"):
        Artifact.open_checked(artifact.path)


def valid(data: bytes, *, pixels: bytes | None = None) -> ValidImage:
    image = decode_image(pixels or data, Limits())
    return ValidImage("a", MemoryBlob("a.png", data), content_hash(image), *image.size, (), None, {})


def test_a_file_that_changed_while_it_was_built_from_is_refused(tmp_path: Path) -> None:
    red, blue = png(square("red")), png(square("blue"))
    with SeenFiles(tmp_path / "seen.sqlite") as seen:
        for known in (None, seen):
            with pytest.raises(SourceError, match="is no longer the image that was validated"):
                gather_originals([valid(blue, pixels=red)], tmp_path / "work", Limits(), known, lambda _: None)
    gathered = gather_originals([valid(red), valid(red)], tmp_path / "work", Limits(), None, lambda _: None)
    assert gathered.digests == [hashlib.sha256(red).hexdigest()] * 2
    assert gathered.bytes == len(red)


class TestHashes:
    @pytest.fixture
    def images(self, tmp_path: Path) -> list[ValidImage]:
        return check(write_collection(tmp_path / "squares", NAMES), Limits(), Silent()).kept

    def test_each_file_has_the_hash_of_its_bytes(self, images: list[ValidImage], tmp_path: Path) -> None:
        done: list[int] = []
        with SeenFiles(tmp_path / "seen.sqlite") as seen:
            found = OriginalHashes(Limits(), seen).of(images, done.append)
        assert found == {name: hashlib.sha256((tmp_path / "squares" / name).read_bytes()).hexdigest() for name in NAMES}
        assert sum(done) == 3

    def test_a_file_that_has_not_changed_is_read_once_while_a_folder_is_watched(
        self, images: list[ValidImage], tmp_path: Path
    ) -> None:
        file = tmp_path / "squares" / NAMES[0]
        reads: list[str] = []

        class Counted(FileBlob):
            def read(self, limit: int) -> bytes:
                reads.append(self.name)
                return super().read(limit)

        counted = [replace(one, blob=Counted(tmp_path / "squares" / one.image_id, one.image_id)) for one in images]
        with SeenFiles(tmp_path / "seen.sqlite", stay_open=True, settled_s=-1) as seen:
            hashes = OriginalHashes(Limits(), seen)
            hashes.of(counted, lambda _: None)
            file.write_bytes(png(square("white", size=20)))
            found = hashes.of(counted, lambda _: None)
        assert sorted(reads) == sorted([*NAMES, NAMES[0]])
        assert found[NAMES[0]] == hashlib.sha256(file.read_bytes()).hexdigest()

    def test_a_file_that_is_gone_meanwhile_is_named(self, images: list[ValidImage], tmp_path: Path) -> None:
        (tmp_path / "squares" / NAMES[1]).unlink()
        with (
            SeenFiles(tmp_path / "seen.sqlite") as seen,
            pytest.raises(SourceError, match=f"{NAMES[1]} is no longer the image that was validated"),
        ):
            OriginalHashes(Limits(), seen).of(images, lambda _: None)
