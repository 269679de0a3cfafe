"""``python -m ui`` starts the page, as ``python -m ui.app`` does, only sooner."""

import gc
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quick_imports() -> Iterator[None]:
    """Leave out what takes long while modules are loaded, and is of no use to a page.

    The garbage collector would look through all that is loaded again and again. And gradio, as it is imported, reads
    the source of each of its components and writes a stub for editors beside it, unless there is no source.
    """
    real = inspect.getfile

    def getfile(thing: Any) -> str:
        if str(getattr(thing, "__module__", "")).startswith("gradio."):
            raise OSError("none that is wanted")
        return real(thing)

    gc.disable()
    inspect.getfile = getfile  # type: ignore[assignment]
    try:
        yield
    finally:
        inspect.getfile = real
        gc.freeze()  # what is loaded stays
        gc.enable()


def main(argv: list[str] | None = None) -> None:
    with quick_imports():
        from ui.app import main as serve

    serve(argv)


if __name__ == "__main__":
    main()
