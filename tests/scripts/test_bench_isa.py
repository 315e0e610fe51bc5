"""Which of the ways to compute an encoder are those that the service takes."""

from typing import Any

import pytest

from scripts.bench_isa import described, is_served, main

LONGEST = {"text": 32, "image": 8}


def way(**other: Any) -> dict[str, Any]:
    return {"tower": "text", "graph": "f32", "type": "f32", "streams": 1, "part": 32} | other


def test_texts_and_images_are_computed_by_all_threads_together() -> None:
    name = "AVX512_CORE_VNNI"
    assert is_served(way(), name, LONGEST)
    assert not is_served(way(streams=2), name, LONGEST)
    assert not is_served(way(part=8), name, LONGEST)
    assert is_served(way(tower="image", part=8), name, LONGEST)
    assert not is_served(way(tower="image", streams=2, part=8), name, LONGEST)


def test_the_type_is_bfloat16_where_that_is_fast_and_float32_beside_8_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.bench_isa.bfloat16_is_fast", lambda without: not without)
    assert is_served(way(type="bf16"), "AVX512_CORE_AMX", LONGEST)
    assert not is_served(way(), "AVX512_CORE_AMX", LONGEST)
    assert is_served(way(), "AVX512_CORE_BF16", LONGEST)
    assert is_served(way(graph="int8"), "AVX512_CORE_AMX", LONGEST)
    assert not is_served(way(graph="int8", type="bf16"), "AVX512_CORE_AMX", LONGEST)


def test_a_way_in_words() -> None:
    assert described(way(type="bf16", streams=2)) == "bf16, 2 streams, parts of 32"
    assert described(way(tower="image", part=8)) == "f32, 1 stream, parts of 8"


def test_a_set_that_the_cpu_lacks_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("scripts.bench_isa.cpu", lambda: "a CPU (avx2 avx512f)")
    monkeypatch.setattr("sys.argv", ["bench_isa", "--sets", "AVX2,AVX512_CORE_AMX"])
    with pytest.raises(SystemExit):
        main()
    assert "lacks AVX512_CORE_AMX; it has AVX2, AVX512_CORE" in capsys.readouterr().err
