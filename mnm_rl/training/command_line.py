"""How the command lines end when something is wrong: one sentence and an exit status, never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mnm_rl.training.stopping import noticed_interrupts
from mnm_rl.updates import NonFiniteError

MEMORY_SIGNS = ("out of memory", "not enough memory", "can't allocate memory", "invalid buffer size")
"""In the messages of torch's errors."""


@contextmanager
def one_sentence_errors(program: str) -> Iterator[None]:
    """Run a program's main function, and say in one sentence why it ended early.

    Bad input, a full disk and too little memory end it with status 2, a training that failed with 1, Ctrl-C
    where nothing has to be saved with 130. A reader that closes the pipe early, such as ``head``, ends it
    quietly. A program that was given no output (``>&-``) runs without.

    Args:
        program: its name, which begins the sentence, unless it was called as ``mnm-rl NAME``.
    """
    program = sys.argv[0] if is_installed_command() else program
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # Open to the end of the program, as the stream that it stands for would be.
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
    with noticed_interrupts() as interrupted, _said_in_one_sentence(program):
        try:
            yield
        except Exception as error:
            if interrupted():
                raise KeyboardInterrupt from error
            raise
        sys.stdout.flush()


@contextmanager
def _said_in_one_sentence(program: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        # Python flushes once more at exit, where nobody could catch the error.
        os.dup2(os.open(Path(os.devnull), os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (ValueError, TypeError) as error:
        _end(program, str(error), 2)
    except NonFiniteError as error:
        _end(program, f"{error} The last checkpoint stands.", 1)
    except KeyboardInterrupt:
        _end(program, "Stopped.", 130)
    except OSError as error:
        _end(program, f"{_describe(error)} The last checkpoint, if there was one, stands.", 2)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(sign in str(error).lower() for sign in MEMORY_SIGNS):
            raise
        _end(program, "There is not enough memory; take smaller sizes, or fewer sequences at once.", 2)


def command_words(name: str) -> str:
    """How a command is called, the way this one was: as ``mnm-rl NAME``, or as a script of the clone."""
    return f"mnm-rl {name}" if is_installed_command() else f"python scripts/{name.replace('-', '_')}.py"


def is_installed_command() -> bool:
    """Whether this program was called as ``mnm-rl NAME``, not as a script of the clone."""
    return sys.argv[0].startswith("mnm-rl ")


def _describe(error: OSError) -> str:
    where = f" {error.filename}" if error.filename is not None else ""
    return f"Cannot read or write{where}: {error.strerror or error}."


def _end(program: str, sentence: str, status: int) -> None:
    print(f"{program}: {' '.join(sentence.split())}", file=sys.stderr)
    sys.exit(status)
