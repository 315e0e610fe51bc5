"""The options of ``build`` for workers of a cluster: they are refused where they would be ignored."""

import importlib.util
from pathlib import Path

import pytest

from clip_retrieval.errors import how_to_install
from tests.cli.test_app import Cli, assert_one_sentence, cli

__all__ = ["cli"]


@pytest.mark.parametrize(
    "option",
    [
        ("--ray-address", "auto"),
        ("--ray-workers", 2),
        ("--ray-cpus", 1),
        ("--ray-gpus", 0),
        ("--shards", "a-folder"),
        ("--shard-images", 100),
    ],
    ids=lambda option: option[0],
)
def test_an_option_of_the_cluster_without_the_engine_is_refused(
    cli: Cli, collection: Path, option: tuple[str, object]
) -> None:
    done = cli("build", collection, "--model", "fake", *option)
    assert done.status == 2
    assert f"Invalid value for {option[0]}: it needs --engine ray" in done.err


def test_a_cluster_needs_a_shared_folder_for_its_shards(cli: Cli, collection: Path) -> None:
    done = cli("build", collection, "--model", "fake", "--engine", "ray", "--ray-address", "auto")
    assert done.status == 2
    assert "Invalid value for --shards: name a folder or a store that all machines of the cluster have" in done.err


def test_the_address_of_a_ray_client_is_refused_with_what_to_do(cli: Cli, collection: Path, tmp_path: Path) -> None:
    options = ["--engine", "ray", "--ray-address", "ray://head:10001", "--shards", tmp_path]
    done = cli("build", collection, "--model", "fake", *options)
    assert done.status == 2
    assert "run the command on a machine of the cluster" in done.err


def test_vectors_that_are_there_need_no_engine(cli: Cli, collection: Path) -> None:
    done = cli("build", collection, "--model", "fake", "--engine", "ray", "--take-vectors")
    assert done.status == 2
    assert "vectors are there already; leave --engine out" in done.err


def test_without_ray_the_option_says_what_to_install(
    cli: Cli, collection: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else find(name, *rest))
    done = cli("build", collection, "--model", "fake", "--engine", "ray")
    assert_one_sentence(done)
    assert f"embedding on Ray needs more packages: {how_to_install('ray')}" in done.err


def test_shards_below_an_unknown_scheme_are_refused(cli: Cli, collection: Path) -> None:
    done = cli("build", collection, "--model", "fake", "--engine", "ray", "--shards", "https://host/place?token=secret")
    assert_one_sentence(done)
    assert "shards cannot lie in https://host/place: give a folder, s3://BUCKET/PATH or gs://BUCKET/PATH" in done.err
    assert "secret" not in done.err


def test_a_device_of_this_machine_is_refused_with_workers_elsewhere(cli: Cli, collection: Path) -> None:
    done = cli("build", collection, "--model", "fake", "--engine", "ray", "--device", "auto")
    assert done.status == 2
    assert "Invalid value for --device: it is for this process; --ray-gpus gives the workers GPUs" in done.err
