"""Shared by the three command lines: two consoles, and one place that turns an error into one line and exit code 2."""

from __future__ import annotations

import contextlib
import inspect
import os
import shlex
import shutil
import signal
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any, TextIO

from engine.errors import EngineError, naming_options

if TYPE_CHECKING:
    import typer
    from rich.console import Console
    from rich.table import Table

# Exit code that shells expect of a program ended by SIGTERM: 128 + SIGTERM.
TERMINATED = 143
# Exit code that shells expect of a program ended by Ctrl-C: 128 + SIGINT.
INTERRUPTED = 130


def stdout() -> Console:
    """Return the console for results; names of classes and files are printed literally, never interpreted as markup."""
    from rich.console import Console

    return Console(soft_wrap=False, highlight=False, markup=False, emoji=False)


def stderr() -> Console:
    """Return the console for progress, warnings and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def say(text: str) -> None:
    """Print one line about the run on stderr: no markup, no control characters from names; see :func:`wrapped`."""
    print(wrapped(one_line(text), sys.stderr), file=sys.stderr, flush=True)


def line(text: str) -> None:
    """Print one line of a result on stdout, as :func:`say` does on stderr."""
    print(wrapped(one_line(text), sys.stdout), flush=True)


def say_next(*words: object) -> None:
    """Name the command that usually follows, on stderr.

    Args:
        words: the command; what the user has to fill in is in capitals.
    """
    say("next: " + shlex.join(map(str, words)))


def wrapped(text: str, stream: IO[str]) -> str:
    """Return a line wrapped at words if it goes to a terminal; programs and files get it whole.

    Words that are longer than a line, such as paths, are never broken.
    """
    if not stream.isatty():
        return text
    width = shutil.get_terminal_size().columns
    return textwrap.fill(text, max(20, width), break_long_words=False, break_on_hyphens=False)


def run(app: typer.Typer) -> None:
    """Run a typer application; turn each :class:`EngineError` into one line on stderr and exit code 2.

    Warnings of libraries are one line too.
    """
    warnings.showwarning = _say_warning
    exit_code(lambda: app(standalone_mode=True))


def _say_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a library's warning as one line, without the place in its code."""
    say(f"warning: {first_line(message) if isinstance(message, Warning) else one_line(message)}")


def exit_code(action: Callable[[], object]) -> None:
    """Call ``action``; exit with 2 on an EngineError, MemoryError or OSError, with 130 on Ctrl-C."""
    try:
        with naming_options():
            action()
    except EngineError as error:
        say("error: " + one_line(str(error)))
        sys.exit(2)
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(INTERRUPTED)
    except SystemExit as left:
        # Typer turns Ctrl-C into this exit code itself, without a message.
        if left.code == INTERRUPTED:
            say("interrupted")
        raise
    except BrokenPipeError:
        # The reader of our stdout has gone (`| head`): not our error. Keep the exit flush from complaining.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except MemoryError as error:
        told = f" ({one_line(str(error))})" if str(error) else ""
        say(f"error: not enough memory{told}: try a smaller --batch-size, fewer --workers or a smaller --tile")
        sys.exit(2)
    except OSError as error:
        # An error of the operating system where none was expected: a name too long, a folder without permission.
        place = f"{error.filename}: " if error.filename else ""
        say("error: " + one_line(f"{place}{error.strerror or error}"))
        sys.exit(2)


def one_line(text: str) -> str:
    """Return ``text`` with line breaks and other control characters replaced by spaces."""
    return "".join(character if character.isprintable() else " " for character in text.strip())


def first_line(error: BaseException, kind: bool = False) -> str:
    """Return the first line of a library's error, at most 200 characters; the type of the error if it has no text.

    Args:
        error: the library's error.
        kind: whether to put the type of the error before the line.
    """
    name, lines = type(error).__name__, str(error).strip().splitlines()
    line = lines[0][:200] if lines else ""
    return (f"{name}: {line}" if kind else line) if line else name


def with_options(shared: Callable[..., Any], name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Append the options of ``shared`` to those of a command.

    Args:
        shared: a function whose parameters are options; called with what the user gave.
        name: the keyword under which the command receives what it returns.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters
        more = inspect.signature(shared, eval_str=True).parameters
        parameters = [
            item.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for item in (*own.values(), *more.values())
            if item.name != name
        ]

        def run(**given: Any) -> None:
            result = shared(**{option: given.pop(option) for option in more})
            command(**given, **{name: result})

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {item.name: item.annotation for item in parameters}
        return run

    return decorate


@contextlib.contextmanager
def silenced(*descriptors: int) -> Iterator[None]:
    """Discard printed output at the file descriptors, since C++ libraries bypass ``sys.stderr``.

    Args:
        descriptors: 1 for stdout, 2 for stderr; only stderr if none is given.
    """
    numbers = descriptors or (2,)
    _flush(numbers)
    kept = [os.dup(number) for number in numbers]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in numbers:
            os.dup2(nowhere, number)
        yield
    finally:
        _flush(numbers)
        for number, copy in zip(numbers, kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)


def _flush(descriptors: Sequence[int]) -> None:
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        if number in descriptors:
            stream.flush()


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM end the run like Ctrl-C, keeping finished work; works only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(TERMINATED)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def plain_table(title: str | None = None) -> Table:
    """Return an empty table in the style of all tables of the command line."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(
        title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1)
    )
