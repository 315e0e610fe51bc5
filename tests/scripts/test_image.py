"""The pure parts of making and proving the image; ``make image-test`` runs the rest for real."""

import json
import re
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.models.fingerprint import folder_fingerprint
from scripts import bento, image
from scripts.oci import engines, pins
from scripts.oci.answers import compare
from scripts.oci.disk_usage import owner, usage
from scripts.oci.stopping import ask

ROOT = Path(__file__).parents[2]


# The pins


PACKAGES = {
    "server": ["Web_Kit>=1", "fast[speed]>=2", "old; python_version < '3.9'", "tests; extra == 'dev'"],
    "web-kit": ["fast>=1"],
    "fast": ["nitro; extra == 'speed'", "mac; sys_platform == 'darwin'"],
    "nitro": ["server"],
}
VERSIONS = {"server": "3.0", "web-kit": "1.1", "fast": "2.2", "nitro": "0.1", "torch": "9"}


def requires(name: str) -> list[str]:
    return PACKAGES[name]


def test_the_pins_are_all_that_is_needed_on_the_target_and_nothing_else() -> None:
    assert pins.closure(["server"], VERSIONS, requires) == ["fast==2.2", "nitro==0.1", "server==3.0", "web-kit==1.1"]


def test_a_package_without_a_tested_version_is_refused() -> None:
    with pytest.raises(pins.NotPinned, match=r"no version of nitro.*make constraints"):
        pins.closure(["server"], {name: v for name, v in VERSIONS.items() if name != "nitro"}, requires)


def test_constraints_are_read_by_normalised_name(tmp_path: Path) -> None:
    path = tmp_path / "constraints.txt"
    path.write_text("# made by hand\nFlask-Login==0.6.3\ntyping_extensions==4.16.0  # why\n\n")
    assert pins.read_constraints(path) == {"flask-login": "0.6.3", "typing-extensions": "4.16.0"}


def test_serving_is_pinned_and_free_of_torch() -> None:
    names = {line.partition("==")[0] for line in pins.serving()}
    assert {"bentoml", "openvino", "faiss-cpu", "httpx", "pillow-heif", "pillow-jxl-plugin"} <= names
    assert not names & {"torch", "torchvision", "open-clip-torch", "transformers", "timm", "nncf", "typer"}


def test_with_basic_formats_no_package_is_under_the_gpl() -> None:
    every, basic = pins.serving(), pins.serving(basic_formats=True)
    assert {line.partition("==")[0] for line in {*every} - {*basic}} == {"pillow-heif", "pillow-jxl-plugin"}
    assert pins.licences(basic) == "MIT"
    assert pins.licences(every) == "MIT AND LGPL-3.0-or-later AND GPL-2.0-or-later AND GPL-3.0-or-later"


def test_a_service_that_follows_a_bucket_has_pyarrow_and_no_other_service_has() -> None:
    assert {line.partition("==")[0] for line in {*pins.serving(buckets=True)} - {*pins.serving()}} == {"pyarrow"}


def test_every_package_that_says_to_be_under_the_gpl_is_listed() -> None:
    for line in pins.serving():
        name = line.partition("==")[0]
        found = metadata.metadata(name).json
        said = [found.get("license_expression"), found.get("license"), *found.get("classifier", ())]
        short = " ".join(text for text in said if isinstance(text, str) and len(text) < 100)
        assert "GPL" not in short or name in pins.COPYLEFT, f"{name}: {short}"


# The Bento


@pytest.mark.slow
def test_the_bento_leaves_out_what_is_not_wanted(fake_artifact: Artifact, tmp_path: Path) -> None:
    bento.stage(tmp_path, "clip-retrieval:1", fake_artifact, basic_formats=True)
    packages = (tmp_path / "requirements.txt").read_text(encoding="utf-8")
    assert "pillow==" in packages
    assert "heif" not in packages


@pytest.mark.slow
def test_only_an_artifact_in_milvus_brings_the_client_of_milvus(fake_artifact: Artifact, tmp_path: Path) -> None:
    spec = {"engine": "milvus", "uri": "http://milvus:19530", "name": "bento_clip_a1_images"}
    images = fake_artifact.manifest.images
    searched = images.model_copy(update={"spec": images.spec.model_copy(update=spec)})
    in_milvus = replace(fake_artifact, manifest=fake_artifact.manifest.model_copy(update={"images": searched}))
    for name, artifact, has_client in (("faiss", fake_artifact, False), ("milvus", in_milvus, True)):
        (tmp_path / name).mkdir()
        bento.stage(tmp_path / name, "clip-retrieval:1", artifact)
        lines = (tmp_path / name / "requirements.txt").read_text(encoding="utf-8").splitlines()
        assert ({"pymilvus", "milvus-lite", "grpcio"} <= {line.partition("==")[0] for line in lines}) is has_client
        assert has_client or not any("milvus" in line for line in lines)


def test_what_bentoml_build_by_hand_installs_is_what_make_bento_installs() -> None:
    assert (ROOT / "requirements.txt").read_text(encoding="utf-8") == pins.requirements(), "run: make constraints"


def test_the_bento_has_the_modules_that_the_service_and_its_launcher_import_and_no_others() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in bento.modules(ROOT)}
    assert {
        "clip_retrieval/service.py",
        "clip_retrieval/serving/launch.py",
        "clip_retrieval/serving/work.py",
        "clip_retrieval/__init__.py",
        "clip_retrieval/encoders/openvino/encoder.py",
    } <= names
    assert not names & {
        "clip_retrieval/cli/app.py",
        "clip_retrieval/build/pipeline.py",
        "clip_retrieval/models/export.py",
    }


def test_the_image_starts_with_the_launcher_and_has_bentomls_command_too() -> None:
    """BentoML's script, which is the entry point, runs a command that it does not know as it is."""
    lines = (ROOT / "deploy" / "oci" / "Dockerfile.j2").read_text(encoding="utf-8").splitlines()
    assert 'ENTRYPOINT ["bash", "{{ bento__path }}/env/docker/entrypoint.sh"]' in lines
    [command] = [json.loads(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD ")]
    assert command == ["python", "-m", "clip_retrieval.serving.launch", "--bento", "{{ bento__path }}"]
    assert any("PYTHONPATH={{ bento__path }}/src" in line for line in lines)


def test_the_labels_say_what_is_inside(fake_artifact: Artifact) -> None:
    found = bento.labels(fake_artifact)
    assert (found["artifact"], found["images"]) == (fake_artifact.manifest.version, "24")
    assert set(found) == {"product", "artifact", "model", "data", "images", "captions"}
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,63}", value) for value in found.values())


@pytest.mark.slow
def test_the_same_inputs_have_the_same_fingerprint(fake_artifact: Artifact, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        bento.stage(tmp_path / name, "clip-retrieval:1", fake_artifact)
    assert folder_fingerprint(tmp_path / "one") == folder_fingerprint(tmp_path / "two")
    service = tmp_path / "two" / "clip_retrieval" / "service.py"
    service.write_text(service.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert folder_fingerprint(tmp_path / "one") != folder_fingerprint(tmp_path / "two")


def test_a_file_that_is_only_named_otherwise_changes_the_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    before = folder_fingerprint(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert folder_fingerprint(tmp_path) != before


# The engine


def usable(*names: str) -> Callable[[str], bool]:
    return lambda name: name in names


def test_the_first_engine_that_works_is_taken() -> None:
    assert engines.choose("", usable("buildah", "podman")) == "podman"


def test_a_wanted_engine_is_not_replaced_by_another() -> None:
    assert engines.choose("docker", usable("podman")) is None
    assert engines.choose("podman", usable("docker", "podman")) == "podman"


def test_an_unknown_engine_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(engines.NoEngine, match="docker, podman, nerdctl, buildah"):
        engines.choose("lxc", usable("lxc"))


def test_where_nothing_works_and_nothing_can_be_installed_it_says_what_to_do() -> None:
    with pytest.raises(engines.NoEngine, match=r"Start docker, install podman, or, on Debian.*deploy/oci/setup-podman"):
        engines.find(usable=usable(), root=False)


def test_a_command_that_is_there_but_fails_does_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = tmp_path / "docker"
    binary.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert not engines.works("docker")
    binary.write_text("#!/bin/sh\nexit 0\n")
    assert engines.works("docker")


@pytest.mark.parametrize("backend", ["podman", "buildah"])
def test_what_buildah_builds_keeps_its_health_check(backend: str) -> None:
    assert engines.engine(backend, root=False).build_environment["BUILDAH_FORMAT"] == "docker"


def test_buildah_builds_and_podman_runs() -> None:
    assert engines.engine("buildah", root=True).binary == "podman"


def test_only_podman_as_root_shares_the_network_of_the_host() -> None:
    sharing = [name for name in engines.BACKENDS if engines.engine(name, root=True).host_network]
    assert sharing == ["podman", "buildah"]
    assert not any(engines.engine(name, root=False).host_network for name in engines.BACKENDS)


# The table


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/app/.venv/lib/python3.11/site-packages/numpy/_core/x.so", "package numpy"),
        ("/app/.venv/lib/python3.11/site-packages/numpy.libs/x.so", "package numpy"),
        ("/app/.venv/lib/python3.11/site-packages/numpy-2.4.6.dist-info/RECORD", "package numpy"),
        ("/app/.venv/lib/python3.11/site-packages/PIL/Image.py", "package pillow"),
        ("/app/.venv/bin/python", "the environment's own files"),
        ("/home/bentoml/bento/models/clip-retrieval/1/images.npy", "the artifact"),
        ("/home/bentoml/bento/src/service.py", "the service's code"),
        ("/usr/lib/python3/dist-packages/pip/__init__.py", "the base: Debian and Python"),
    ],
)
def test_every_file_belongs_to_something(path: str, name: str) -> None:
    assert owner(path) == name


def test_a_file_with_two_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_bytes(b"x" * 1000)
    (tmp_path / "b").hardlink_to(tmp_path / "folder" / "a")
    (tmp_path / "c").symlink_to("b")
    assert sum(usage(str(tmp_path)).values()) == 1000


def test_the_table_is_largest_first_and_adds_up() -> None:
    rows = image.table({"the artifact": 5_000_000, "package a": 1_000_000, "package b": 7_000_000}, shown=1)
    assert [" ".join(row.split()) for row in rows.splitlines()] == [
        "package b 7.0 MB",
        "the artifact 5.0 MB",
        "1 more packages 1.0 MB",
        "all files 13.0 MB",
    ]


# The comparison with the retriever


EXPECTED = [("a", 0.9), ("b", 0.5), ("c", 0.4999), ("d", 0.1)]


def test_the_same_answer_agrees() -> None:
    found = compare(EXPECTED[:3], EXPECTED)
    assert (found.problem, found.swapped, found.difference) == ("", 0, 0)


def test_near_ties_may_change_places_within_the_difference_that_is_seen() -> None:
    found = compare([("a", 0.9), ("c", 0.50005), ("b", 0.5)], EXPECTED)
    assert (found.problem, found.swapped) == ("", 2)


def test_results_in_another_order_than_their_scores_allow_do_not_agree() -> None:
    assert compare([("a", 0.9), ("c", 0.4999), ("b", 0.5)], EXPECTED).problem == "c is at the place of b"


def test_a_score_that_differs_too_much_does_not_agree() -> None:
    assert "more than 0.001" in compare([("a", 0.9), ("b", 0.502)], EXPECTED).problem


@pytest.mark.parametrize("served", [[("z", 0.9)], [], [("a", 0.9), ("a", 0.9)]])
def test_unknown_missing_and_repeated_results_do_not_agree(served: list[tuple[str, float]]) -> None:
    assert compare(served, EXPECTED).problem


# What became of a request


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    ("answer", "fate"),
    [
        (CONTINUE + OK, "answered"),
        (b"", "refused"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "refused"),
        (CONTINUE, "lost"),
        (CONTINUE + OK[:-1], "lost"),
        (CONTINUE + b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 2\r\n\r\n{}", "lost"),
    ],
)
def test_a_request_is_lost_if_it_was_accepted_and_not_answered(answer: bytes, fate: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)
                if answer.startswith(CONTINUE):
                    connection.recv(4096)

        thread = threading.Thread(target=serve)
        thread.start()
        request = ask(f"http://127.0.0.1:{server.getsockname()[1]}", "a red panda")
        thread.join()
    assert request.fate == fate
    assert (request.accepted is None) == (fate == "refused")


def test_a_request_to_a_closed_port_is_refused() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    assert ask(f"http://127.0.0.1:{port}", "a red panda").fate == "refused"
