"""The `kdaug` command: imports and runs the module of one command, and turns errors into one line and an exit code.

Exit codes: 0 done, 2 bad input, 130 interrupted, 1 a failed run of several or an internal error.
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
from kdaug.errors import InputError, did_you_mean

# command -> (module, summary); a module is imported only when its command runs
COMMANDS = {
    "demo": ("kdaug.cli.demo", "train a network plain, augmented and with a teacher on bundled images, in minutes"),
    "data": ("kdaug.cli.data", "check a folder of images: classes, copies, unreadable files"),
    "train": ("kdaug.cli.train", "train a recipe, given by name or as a YAML file"),
    "sweep": ("kdaug.cli.sweep", "train a recipe with every combination of several settings"),
    "reproduce": ("kdaug.cli.reproduce", "train the runs of a table or figure of the paper and compare the errors"),
    "inspect": ("kdaug.cli.inspect", "show what augmentation does to a teacher's predictions"),
    "recommend": ("kdaug.cli.recommend", "recommend a magnitude and K from a teacher's predictions"),
    "label": ("kdaug.cli.label", "store a teacher's soft labels, for training without the teacher"),
    "eval": ("kdaug.cli.evaluate", "evaluate the weights of a run, or timm's"),
    "predict": ("kdaug.cli.predict", "predict the classes of images with the network of a run"),
    "export": ("kdaug.cli.export", "write the network of a run for ONNX, torch.export, timm or the hub"),
    "report": ("kdaug.cli.report", "compare finished runs in tables, figures and an HTML page"),
    "runs": ("kdaug.cli.runs", "list runs with state, errors and the command that resumes each"),
    "views": ("kdaug.cli.views", "list augmentation policies, or show what one does"),
    "networks": ("kdaug.cli.networks", "list the networks of the paper with published errors"),
    "recipes": ("kdaug.cli.recipes", "list named recipes, show one as YAML, or smoke-test them"),
}  # fmt: skip


def entry() -> None:
    """The console script: runs `main` and exits; Ctrl-C prints one line, from the first import to the last thread."""
    pressed: list[int] = []

    def handle(signum: int, frame: FrameType | None) -> None:
        if pressed or _is_importing(frame):  # already exiting, or inside an import, which may swallow the exception
            os.write(2, b"kdaug: interrupted\n")
            os._exit(130)
        pressed.append(signum)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handle)
    threading.excepthook, sys.unraisablehook = _ignore_file_errors, _exit_if_interrupted
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as on stderr: file names may not be valid text
    try:
        code = main()
    except BaseException:
        if not pressed:
            raise
        code = _interrupted()  # a library raised something else instead of the KeyboardInterrupt
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def _ignore_file_errors(failed: threading.ExceptHookArgs) -> None:
    """Prints no traceback for a thread that cannot write (TensorBoard's): the main thread reports the same error."""
    if not isinstance(failed.exc_value, OSError):
        threading.__excepthook__(failed)


def _exit_if_interrupted(ignored: sys.UnraisableHookArgs) -> None:
    """Exits if Ctrl-C arrived where Python ignores exceptions, such as in a destructor."""
    if ignored.exc_type is KeyboardInterrupt:
        os.write(2, b"kdaug: interrupted\n")
        os._exit(130)
    sys.__unraisablehook__(ignored)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    args = sys.argv[1:] if arguments is None else arguments
    command = None
    try:
        if not args or args[0] in ("-h", "--help", "help"):
            print(usage(), flush=True)
            return 0
        if args[0] == "--version":
            print(f"kdaug {version('kdaug')}", flush=True)
            return 0
        if args[0] not in COMMANDS:
            suggestion = did_you_mean(args[0], list(COMMANDS))
            raise InputError(f"there is no command {args[0]!r}{suggestion} (kdaug --help lists all commands)")
        command = importlib.import_module(COMMANDS[args[0]][0])
        code: int = command.run(args[1:])
        sys.stdout.flush()
        return code
    except InputError as error:
        print_error(error, getattr(command, "SETTING_FLAGS", {}))
        return 2
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:  # the reader of our output, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _print_os_error(error)


def _print_os_error(error: OSError) -> int:
    """Prints an error of the user's files or disk and returns the exit code. Any other error is raised again."""
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    if not is_full and not error.filename:
        raise error
    file = f" ({error.filename})" if error.filename else ""
    hint = "; free some space, then continue with the same command (kdaug train: with --run.resume)" if is_full else ""
    print_error(f"{'the disk is full' if is_full else error.strerror}{file}{hint}")
    return 2


def _interrupted() -> int:
    print("kdaug: interrupted", file=sys.stderr)
    return 130


def usage() -> str:
    """The text of `kdaug --help`."""
    lines = [f"  {name:<11}{summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: kdaug COMMAND ...",
            "",
            "Train image classifiers with strong augmentation and a teacher that labels the augmented images.",
            "",
            *lines,
            "",
            "kdaug COMMAND --help prints the options of a command. To start: kdaug demo",
        ]
    )
