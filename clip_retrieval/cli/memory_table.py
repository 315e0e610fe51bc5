"""Where the memory of a service is, as tables."""

from rich.table import Column, Table

from clip_retrieval.cli import console
from clip_retrieval.serving.memory_parts import Held, ServiceMemory


def memory_table(memory: ServiceMemory) -> None:
    """Print the parts of the memory and, if there are several, the processes; all in MB (10⁶ bytes)."""
    total = sum((process.held for process in memory.processes), Held())
    shown = Table("part", *_numbers(), title="where the memory is, in MB")
    for part, held in memory.parts.items():
        if held.total:
            shown.add_row(part, *_cells(held))
    shown.add_row("total", *_cells(total), style="bold")
    console.table(shown)
    if len(memory.processes) == 1:
        return
    shown = Table("process", "pid", *_numbers(), title="the processes, in MB")
    for process in memory.processes:
        shown.add_row(process.role, str(process.pid), *_cells(process.held))
    console.table(shown)


def _numbers() -> tuple[Column, ...]:
    return tuple(Column(name, justify="right") for name in ("private", "shared", "together"))


def _cells(held: Held) -> tuple[str, ...]:
    return tuple(f"{size / 1e6:,.1f}" for size in (held.private, held.shared, held.total))
