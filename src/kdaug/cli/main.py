"""The `kdaug` command: finds the verb, runs it, and turns what went wrong into one line and an exit code.

Exit codes: 0 done, 2 bad input, 130 interrupted, 1 a run of several failed, or a defect of ours.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import signal
import sys
import threading
from importlib.metadata import version
from types import FrameType

from kdaug.cli.output import print_error
from kdaug.errors import InputError, nearest

# verb -> (module, what it does); the module is imported only when its verb is used
VERBS = {
    "demo": ("kdaug.cli.demo", "see it work in minutes: a teacher and two students on bundled images"),
    "train": ("kdaug.cli.train", "train a recipe, by name or from a YAML file"),
    "sweep": ("kdaug.cli.sweep", "train a recipe with other values of some settings, every combination of them"),
    "reproduce": ("kdaug.cli.reproduce", "a table or figure of the paper: our figures beside its own"),
    "label": ("kdaug.cli.label", "store what a teacher says of every view, to train from without it"),
    "eval": ("kdaug.cli.evaluate", "error of a finished run's weights"),
    "report": ("kdaug.cli.report", "set finished runs side by side: tables, gains, figures, one page"),
    "runs": ("kdaug.cli.runs", "list runs: state, best figure, how to go on"),
    "views": ("kdaug.cli.views", "list the augmentation policies, or show what one really does"),
    "networks": ("kdaug.cli.networks", "list the networks of the paper, with published figures"),
    "recipes": ("kdaug.cli.recipes", "list the named recipes, or show one as YAML"),
}  # fmt: skip


def entry() -> None:
    """The console script: `main`, with Ctrl-C in one line from the first import to the last thread's end."""
    pressed: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        if pressed or _is_importing(frame):  # already on the way out, or where an exception may well be swallowed
            os.write(2, b"kdaug: interrupted\n")
            os._exit(130)
        pressed.append(signum)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    threading.excepthook, sys.unraisablehook = _leave_files_to_the_main_thread, _leave_if_interrupted
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is: names of files need not be text
    try:
        code = main()
    except BaseException:
        if not pressed:
            raise
        code = _interrupted()  # a library turned the KeyboardInterrupt into something else while it was imported
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def _leave_files_to_the_main_thread(failed: threading.ExceptHookArgs) -> None:
    """A thread that cannot write (TensorBoard's) tells whom it writes for, so that nobody needs its traceback too."""
    if not isinstance(failed.exc_value, OSError):
        threading.__excepthook__(failed)


def _leave_if_interrupted(lost: sys.UnraisableHookArgs) -> None:
    """Ctrl-C came in a place that swallows exceptions (a destructor); to go on would be to disobey it."""
    if lost.exc_type is KeyboardInterrupt:
        os.write(2, b"kdaug: interrupted\n")
        os._exit(130)
    sys.__unraisablehook__(lost)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        code = _dispatch(given)
        sys.stdout.flush()
        return code
    except InputError as error:
        print_error(str(error))
        return 2
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:  # whoever read our output (head, say) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # files and folders are the user's
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not full and not error.filename:
            raise
        where = f" ({error.filename})" if error.filename else ""
        hint = "; free some space, then continue with the same command (kdaug train: with --run.resume)" if full else ""
        said = "the disk is full" if full else str(error.strerror)
        print_error(f"{said}{where}{hint}")
        return 2


def _interrupted() -> int:
    print("kdaug: interrupted", file=sys.stderr)
    return 130


def _dispatch(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if given[0] == "--version":
        print(f"kdaug {version('kdaug')}")
        return 0
    if given[0] not in VERBS:
        raise InputError(f"there is no command {given[0]!r}{nearest(given[0], list(VERBS))} (kdaug --help lists them)")
    verb = importlib.import_module(VERBS[given[0]][0])
    code: int = verb.run(given[1:])
    return code


def usage() -> str:
    """The text of `kdaug --help`."""
    lines = [f"  {verb:<10}{what}" for verb, (_, what) in VERBS.items()]
    return "\n".join(
        [
            "usage: kdaug COMMAND ...",
            "",
            "Train image classifiers under strong augmentation, with a teacher that looks at the same views.",
            "",
            *lines,
            "",
            "kdaug COMMAND --help says more. Start with: kdaug demo",
        ]
    )


if __name__ == "__main__":
    entry()
