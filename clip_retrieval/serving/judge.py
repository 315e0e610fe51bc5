"""Whether an artifact may take over: it is verified, and measured beside the one that is served."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from clip_retrieval.artifacts import promises
from clip_retrieval.artifacts.promises import Kept
from clip_retrieval.contract.status import MeasuredIndex
from clip_retrieval.errors import SwapRefused
from clip_retrieval.serving.child import ChildFailed, run_module

JUDGE_S = 1800
"""How long an artifact may take to be verified and measured: minutes for one of 100 GB on a slow disk."""

Judge = Callable[[Path, Path], Awaitable[list[MeasuredIndex]]]
"""Verifies the artifact in a folder, and measures it beside the one that is served. Raises SwapRefused."""


async def judge_in_a_process(
    folder: Path, served: Path, *, module: str = promises.__name__, limit_s: float = JUDGE_S
) -> list[MeasuredIndex]:
    """What ``artifacts/promises.py`` measures of the artifact in ``folder``, in a process of its own.

    Raises SwapRefused with the reason if a file of it is damaged, or if it takes longer than ``limit_s``.
    """
    try:
        verdict = await run_module(module, str(folder), str(served), limit_s=limit_s)
    except TimeoutError:
        raise SwapRefused(f"{folder} was not measured within {limit_s:g} s") from None
    except ChildFailed as error:
        raise SwapRefused(f"{folder} could not be measured ({error})") from None
    if verdict["error"] is not None:
        raise SwapRefused(verdict["error"])
    return [MeasuredIndex.model_validate(one) for one in verdict["kept"]]


def refuse_shortfalls(source: str, measured: Sequence[MeasuredIndex]) -> None:
    shortfalls = [line for one in measured for line in Kept(**one.model_dump()).shortfalls]
    if shortfalls:
        raise SwapRefused(
            f"{source} falls short of its manifest: {'; '.join(shortfalls)}. Build or tune it again, or force the swap"
        )
