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

from engine.errors import EngineError, OutputError, naming_options

if TYPE_CHECKING:
    import typer
    from rich.console import Console
    from rich.table import Table

# Exit code that shells expect of a program ended by Ctrl-C: 128 + SIGINT. Other signals end it with theirs.
INTERRUPTED = 130
# Signals that end a run like Ctrl-C: of a scheduler, and of a terminal or connection that is closed.
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


def stdout() -> Console:
    """Return the console for results; names of classes and files are printed literally, never interpreted as markup."""
    from rich.console import Console

    return Console(soft_wrap=False, highlight=False, markup=False, emoji=False)


def stderr() -> Console:
    """Return the console for progress, warnings and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def say(text: str) -> None:
    """Print one line about the run on stderr: no markup, no control characters from names; see :func:`wrapped`.

    Where stderr is closed or its disk is full nobody reads the line, and the run goes on.
    """
    try:
        stream = sys.stderr or open_nowhere()
        print(wrapped(one_line(text), stream), file=stream, flush=True)
    except (OSError, ValueError):
        _discard(sys.stderr)


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
    open_standard_streams()
    warnings.showwarning = _say_warning
    exit_code(lambda: _whole(app))


def _whole(app: typer.Typer) -> None:
    """Run an application and flush its results: at the interpreter's own exit an error of that is a traceback.

    Raises:
        OutputError: they cannot be written.
        SystemExit: the application's own exit.
    """
    try:
        app(standalone_mode=True)
    except SystemExit as left:
        if isinstance(left.__context__, BrokenPipeError):  # Typer makes an exit with code 1 of it
            raise left.__context__ from None
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            _discard(sys.stdout)
        except OSError as error:
            raise OutputError(f"cannot write the results to stdout ({error.strerror}): make space") from None
        raise


def open_nowhere() -> IO[str]:
    """Return a stream that discards what is written."""
    return open(os.devnull, "r+", encoding="utf-8")  # noqa: PTH123 (stays open as long as the process)


def open_standard_streams() -> None:
    """Open stdin, stdout and stderr where the caller closed them, as with ``2>&-``.

    The next file opened would take their place, and libraries that write to these descriptors would write into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
        if getattr(sys, name) is None:
            setattr(sys, name, open_nowhere())


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
        _discard(sys.stdout)
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
        # The reader of our stdout has gone (`| head`): not our error.
        _discard(sys.stdout)
        sys.exit(0)
    except MemoryError as error:
        told = f" ({one_line(str(error))})" if str(error) else ""
        say(f"error: not enough memory{told}: try a smaller --batch-size, fewer --workers or a smaller --tile")
        sys.exit(2)
    except OSError as error:
        # An error of the operating system where none was expected: a name too long, a folder without permission, or
        # a full disk behind stdout.
        _discard(sys.stdout)
        place = f"{error.filename}: " if error.filename else ""
        say("error: " + one_line(f"{place}{error.strerror or error}"))
        sys.exit(2)


def _discard(stream: IO[str]) -> None:
    """Discard what is left of a stream that cannot be written: the flush at exit would complain and change the code."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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
    """Let SIGTERM and SIGHUP end the run like Ctrl-C, keeping finished work; works only in the main thread.

    The exit code is 128 and the signal's number, as shells expect. What the caller ignores (nohup) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: object) -> None:
        for other in before:
            signal.signal(other, signal.SIG_IGN)
        sys.exit(128 + number)

    heard = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, leave) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def plain_table(title: str | None = None) -> Table:
    """Return an empty table in the style of all tables of the command line."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(
        title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1)
    )
