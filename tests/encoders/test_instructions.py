"""Whether bfloat16 is worth computing in, by what the kernel says of the CPU."""

from pathlib import Path

import pytest

from clip_retrieval.encoders.openvino.instructions import bfloat16_is_fast, eight_bits_are_fast

INTEL, AMD = "GenuineIntel", "AuthenticAMD"


@pytest.mark.parametrize(
    ("vendor", "flags", "fast"),
    [
        (INTEL, "fpu avx512f avx512_bf16 amx_bf16 amx_tile", True),
        (INTEL, "fpu avx512f avx512_bf16", False),
        (INTEL, "fpu avx512f avx512_bf16 amx_tile amx_int8", False),
        (AMD, "fpu avx512f avx512_bf16", True),
    ],
)
def test_intel_needs_amx_for_it(tmp_path: Path, vendor: str, flags: str, fast: bool) -> None:
    one = f"processor\t: 0\nvendor_id\t: {vendor}\nmodel name\t: a CPU\nflags\t\t: {flags}\n\n"
    (tmp_path / "cpuinfo").write_text(one + one.replace(": 0", ": 1"))
    assert bfloat16_is_fast(tmp_path / "cpuinfo") is fast


def test_flags_can_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"vendor_id : {INTEL}\nflags : avx512_bf16 amx_bf16\n")
    assert bfloat16_is_fast(tmp_path / "cpuinfo")
    assert not bfloat16_is_fast(tmp_path / "cpuinfo", without=["amx_bf16"])


@pytest.mark.parametrize("text", [None, "", "processor : 0\nFeatures : fp asimd bf16\n", "vendor_id : GenuineIntel\n"])
def test_a_cpu_of_which_nothing_is_known_computes_as_openvino_says(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert bfloat16_is_fast(tmp_path / "cpuinfo")


@pytest.mark.parametrize(
    ("text", "fast"),
    [
        (f"vendor_id : {INTEL}\nflags : fpu avx512f avx512_vnni\n", True),
        (f"vendor_id : {AMD}\nflags : fpu avx512f avx512_bf16 avx512_vnni\n", True),
        (f"vendor_id : {INTEL}\nflags : fpu avx2 avx_vnni\n", False),
        ("Features : fp asimd\n", False),
        (None, False),
    ],
)
def test_vnni_makes_8_bits_fast(tmp_path: Path, text: str | None, fast: bool) -> None:
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert eight_bits_are_fast(tmp_path / "cpuinfo") is fast
