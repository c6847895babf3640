"""How the scripts end when something is wrong: one sentence and an exit status, never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mnm_rl.updates import NonFiniteError


@contextmanager
def one_sentence_errors(program: str) -> Iterator[None]:
    """Run a script's main function; bad input ends it with status 2, a failed training run with status 1.

    A reader that closes the pipe early, such as ``head``, ends it quietly.

    Args:
        program: name of the script, which begins the sentence.
    """
    try:
        yield
        sys.stdout.flush()
    except (ValueError, TypeError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(2)
    except NonFiniteError as error:
        print(f"{program}: {error} The last checkpoint stands.", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        # Python flushes once more at exit, where nobody could catch the error.
        os.dup2(os.open(Path(os.devnull), os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
