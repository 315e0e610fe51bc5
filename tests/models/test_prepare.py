"""From a model's name to an encoder folder in the cache. Models that need torch are in the tests of their encoder."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

import pytest

from clip_retrieval.encoders import INFO_FILE, load_encoder, read_info
from clip_retrieval.encoders.base import EncoderInfo
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import BuildRunning, MissingExtra, ModelUnavailable, how_to_install
from clip_retrieval.models.prepare import cache_dir, cache_key, prepare_encoder
from clip_retrieval.work_folder import work_folder


@pytest.fixture
def prepared(cache_home: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None, bool | None]]:
    """The models that open_clip was asked for: a fake notes them instead of loading them."""
    asked = []

    def note(model: str, pretrained: str | None, target: Path, *, quick_gelu: bool | None, **_: object) -> EncoderInfo:
        asked.append((model, pretrained, quick_gelu))
        target.mkdir(parents=True, exist_ok=True)
        (target / "weights").touch()
        return FakeEncoder().info

    pytest.importorskip("clip_retrieval.models.local_dir")
    monkeypatch.setattr("clip_retrieval.models.local_dir.save_local_dir", note)
    return asked


def test_the_cache_is_in_the_cache_folder_of_the_system(cache_home: Path) -> None:
    assert cache_dir() == cache_home / "bento-clip"


class TestFake:
    def test_the_folder_holds_an_encoder_that_loads(self, cache_home: Path) -> None:
        folder = prepare_encoder("fake")
        assert folder.is_relative_to(cache_dir())
        assert load_encoder(folder).info == FakeEncoder().info

    def test_what_is_in_the_cache_is_used_again(self, cache_home: Path) -> None:
        folder = prepare_encoder("fake")
        before = (folder / INFO_FILE).stat().st_mtime_ns
        assert prepare_encoder("fake") == folder
        assert (folder / INFO_FILE).stat().st_mtime_ns == before

    def test_nothing_else_is_left_in_the_cache(self, cache_home: Path) -> None:
        folder = prepare_encoder("fake")
        assert list(folder.parent.iterdir()) == [folder]

    def test_half_a_folder_is_made_again(self, cache_home: Path) -> None:
        folder = prepare_encoder("fake")
        (folder / INFO_FILE).unlink()
        assert read_info(prepare_encoder("fake")) == FakeEncoder().info

    def test_while_another_process_makes_it_this_one_waits_and_says_so(self, cache_home: Path) -> None:
        target = cache_dir() / "encoders" / cache_key("fake", None)
        lines: Queue[str] = Queue()
        with ThreadPoolExecutor() as pool:
            with work_folder(target.with_name(f"{target.name}.preparing"), None, temporary=True):
                with pytest.raises(BuildRunning, match=f"process {os.getpid()}, since"):
                    prepare_encoder("fake", wait=False)
                waiting = pool.submit(prepare_encoder, "fake", say=lines.put)
                assert f"process {os.getpid()}, since" in lines.get(timeout=30)
                target.mkdir()
                (target / INFO_FILE).write_text(FakeEncoder().info.model_dump_json())
                (target / "made-by-the-other").touch()
            assert (waiting.result(timeout=30) / "made-by-the-other").exists()


def reference(model: str, pretrained: str | None = None) -> Path:
    """The folder of a model as torch runs it."""
    return prepare_encoder(model, pretrained, runtime="torch")


@pytest.mark.slow
class TestOpenClip:
    def test_a_checkpoint_file_that_changes_is_another_model(
        self, prepared: list[tuple[str, str | None, bool | None]], tmp_path: Path
    ) -> None:
        checkpoint = tmp_path / "weights.pt"
        checkpoint.write_bytes(b"one")
        first = reference("ViT-B-32", str(checkpoint))
        assert reference("ViT-B-32", str(checkpoint)) == first
        checkpoint.write_bytes(b"three")
        assert reference("ViT-B-32", str(checkpoint)) != first
        assert len(prepared) == 2

    def test_a_model_folder_that_changes_is_another_model(
        self, prepared: list[tuple[str, str | None, bool | None]], tmp_path: Path
    ) -> None:
        weights = tmp_path / "model" / "sub" / "weights"
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"one")
        first = reference(f"local-dir:{tmp_path / 'model'}")
        os.utime(weights, ns=(1, 1))
        assert reference(f"local-dir:{tmp_path / 'model'}") != first

    def test_each_model_has_a_folder_of_its_own(self, prepared: list[tuple[str, str | None, bool | None]]) -> None:
        names = [("ViT-B-32", "openai"), ("ViT-B-32", "laion2b"), ("ViT-B-16", "openai"), ("hf-hub:a/b", None)]
        assert len({reference(*name) for name in names}) == 4
        assert [asked[:2] for asked in prepared] == names

    def test_a_model_folder_is_the_same_however_it_is_named(
        self, prepared: list[tuple[str, str | None, bool | None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "model").mkdir()
        monkeypatch.chdir(tmp_path)
        assert reference("local-dir:model") == reference(f"local-dir:{tmp_path}/./model")

    def test_a_failure_leaves_nothing_in_the_cache(self, cache_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(model: str, pretrained: str | None, target: Path, **_: object) -> EncoderInfo:
            target.mkdir(parents=True, exist_ok=True)
            raise ModelUnavailable("the hub cannot be reached")

        pytest.importorskip("clip_retrieval.models.local_dir")
        monkeypatch.setattr("clip_retrieval.models.local_dir.save_local_dir", fail)
        with pytest.raises(ModelUnavailable, match="hub"):
            reference("ViT-B-32", "openai")
        assert list((cache_dir() / "encoders").iterdir()) == []

    def test_each_activation_has_a_folder_of_its_own(self, prepared: list[tuple[str, str | None, bool | None]]) -> None:
        ways = (None, True, False)
        folders = {prepare_encoder("ViT-B-32", "openai", runtime="torch", quick_gelu=way) for way in ways}
        assert len(folders) == 3
        assert [asked[2] for asked in prepared] == list(ways)

    def test_a_name_with_a_slash_is_the_one_with_a_dash(
        self, prepared: list[tuple[str, str | None, bool | None]]
    ) -> None:
        assert reference("ViT-B/32", "openai") == reference("ViT-B-32", "openai")
        assert len(prepared) == 1


class TestWhatIsGivenAndNotUsed:
    @pytest.mark.parametrize("model", ["demo", "fake", "hf-hub:a/b", "local-dir:/nowhere"])
    def test_weights_for_a_model_that_has_its_own_are_refused(self, cache_home: Path, model: str) -> None:
        with pytest.raises(ModelUnavailable, match=f"{model} has its own weights: leave --pretrained openai out"):
            prepare_encoder(model, "openai")
        assert not cache_home.exists()

    @pytest.mark.parametrize("model", ["demo", "fake"])
    @pytest.mark.parametrize("quick_gelu", [True, False])
    def test_an_activation_for_a_model_that_has_its_own_is_refused(
        self, cache_home: Path, model: str, quick_gelu: bool
    ) -> None:
        with pytest.raises(ModelUnavailable, match=f"{model} has its own activation"):
            prepare_encoder(model, quick_gelu=quick_gelu)

    @pytest.mark.parametrize("model", ["demo", "fake"])
    def test_a_language_for_a_model_that_does_not_mark_it_is_refused(self, cache_home: Path, model: str) -> None:
        with pytest.raises(ModelUnavailable, match=f"{model} does not mark texts with their language"):
            prepare_encoder(model, text_language="deu_Latn")


def test_a_model_folder_that_does_not_exist_is_refused(cache_home: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=rf"there is no folder {tmp_path}/nothing"):
        prepare_encoder(f"local-dir:{tmp_path}/nothing")
    assert not cache_home.exists()


def test_without_torch_the_error_names_the_extra(cache_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    monkeypatch.delitem(__import__("sys").modules, "clip_retrieval.models.local_dir", raising=False)
    with pytest.raises(MissingExtra, match=re.escape(how_to_install("build"))):
        prepare_encoder("ViT-B-32", "openai")


def test_each_release_has_folders_of_its_own() -> None:
    assert cache_key("fake", None) == cache_key("fake", None)
    assert cache_key("fake", None, version="999") != cache_key("fake", None)


def test_another_head_is_another_demo_encoder(tmp_path: Path) -> None:
    other = tmp_path / "head"
    other.write_bytes(b"another head")
    assert cache_key("demo", None, demo_head=other) != cache_key("demo", None)
    assert cache_key("fake", None, demo_head=other) == cache_key("fake", None)
