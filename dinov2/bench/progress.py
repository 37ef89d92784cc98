"""How a measurement says where it is: on standard error, a bar on a terminal, elsewhere a line for each part.

In: how many parts there are. Out: a function that is told each part as it begins.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Tell = Callable[[str], None]


@contextmanager
def announced(title: str, *, total: int) -> Iterator[Tell]:
    """Gives `tell(part)`, to be called as each of `total` parts begins."""
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(title, total=total)
        begun = 0

        def tell(part: str) -> None:
            nonlocal begun
            bar.update(task, description=f"{title}: {part}", completed=begun)
            begun += 1
            if not console.is_terminal:
                console.print(f"{title}, {begun} of {total}: {part}", markup=False, soft_wrap=True)

        yield tell
