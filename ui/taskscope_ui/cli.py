"""The command `taskscope`: what it offers, and how every error ends in one line and an exit code.

Read by whoever runs it. Only typer is imported here, and late: `taskscope --help` works without any extra.
"""

from __future__ import annotations

import importlib.util
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn

from taskscope.errors import TaskscopeError

if TYPE_CHECKING:
    import typer

__all__ = ["EXIT_BAD_INPUT", "EXIT_FINDINGS", "EXIT_INTERRUPTED", "application", "main"]

EXIT_FINDINGS: Final = 1
EXIT_BAD_INPUT: Final = 2
EXIT_INTERRUPTED: Final = 130

_EXTRA_OF: Final = {
    # package that is missing: the extra that brings it
    "typer": "ui",
    "rich": "ui",
    "streamlit": "ui",
    "altair": "ui",
    "pandas": "ui",
    "psutil": "ui",
    "anyio": "ui",
    "promql_parser": "ui",
    "httpx2": "ui",
    "yaml": "alerts",
    "grafanalib": "dashboards",
    "elasticsearch": "exporters",
    "stamina": "exporters",
    "fastapi": "taskapi",
    "uvicorn": "taskapi",
    "sqlalchemy": "taskapi",
}

_COMMANDS: Final = (
    "up fault doctor build check catalogue version page preview ship collect-logs logs"
)
_ABOUT: Final = """An observability stack from one catalogue: metrics, logs, traces, boards, alerts and a capacity page.

Exit codes: 0 all is well · 1 findings (check, doctor) · 2 bad input or a part that fails · 130 interrupted.

Start here: `taskscope up` runs everything on this machine; `taskscope doctor` says what is wrong with it.
"""


def application() -> typer.Typer:
    """The command line, with every command. Raises ModuleNotFoundError where typer is missing."""
    import typer

    from taskscope_ui.commands import collect, generate, logs, pages, stack

    app = typer.Typer(
        name="taskscope",
        help=_ABOUT,
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # plain help: 0.1 s sooner, and the README can paste it
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    for module in (stack, generate, pages, logs, collect):
        module.add_to(app)
    return app


def main(arguments: list[str] | None = None) -> NoReturn:
    """The command has run and the process exits; an error is one line on stderr, never a traceback."""
    _open_streams()
    words = sys.argv[1:] if arguments is None else arguments
    try:
        code = _run(words) if _has_typer() else _plain_help(words)
        sys.stdout.flush()
    except TaskscopeError as error:
        code = _say(str(error))
    except ModuleNotFoundError as error:
        code = _missing(error)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe went away, as in `taskscope catalogue | head`; nothing more can be printed.
        _close_output()
        code = 0
    except OSError as error:
        _close_output()
        code = _say(
            f"{error.filename or 'output'}: {error.strerror}; free the disk, or see its permissions"
        )
    sys.exit(code)


def _has_typer() -> bool:
    return importlib.util.find_spec("typer") is not None


def _plain_help(words: list[str]) -> int:
    """The help where only the library is installed: what the command would offer, and what brings it."""
    if words and words[0] not in ("--help", "-h"):
        import typer  # noqa: F401 # raises the error that names the extra
    print(f"Usage: taskscope COMMAND [ARGS]...\n\n{_ABOUT}\nCommands: {_COMMANDS}")  # noqa: T201 # the help itself
    print("\nNone of them is installed here; run: pip install 'taskscope[all]'")  # noqa: T201
    return 0 if words else EXIT_BAD_INPUT


def _open_streams() -> None:
    """Both streams are there and take every sign; one that the caller had closed goes nowhere."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 # as long as the process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a sign shows ? for it


def _close_output() -> None:
    """What is left to print goes nowhere, so that the interpreter does not complain at its end."""
    with suppress(OSError, ValueError):  # not a file, as in a test
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str]) -> int:
    import typer

    for word in arguments:
        if word.encode("utf-8", "replace").decode() != word:
            return _say(f"argument {word!r} is not UTF-8; rename what it names")

    # typer carries click inside since 0.25 and uses the package before: both give the class this way.
    click_exception: type[Exception] = next(
        c
        for c in typer.BadParameter.__mro__
        if c.__name__ == "ClickException" and issubclass(c, Exception)
    )
    try:
        result = application()(arguments, prog_name="taskscope", standalone_mode=False)
    except typer.Abort:
        return EXIT_INTERRUPTED
    except click_exception as error:
        return _usage(error)
    return result if isinstance(result, int) else 0


def _usage(error: BaseException) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error)  # noqa: T201 # the help itself, which was asked for by giving no command
        return EXIT_BAD_INPUT
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", "taskscope")
    message = getattr(error, "format_message", error.__str__)()
    return _say(f"{message.rstrip('.?')}; see `{command} --help`")


def _missing(error: ModuleNotFoundError) -> int:
    package = (error.name or "").partition(".")[0]
    if package.startswith("taskscope"):
        raise error  # a fault of ours, not of the environment: the traceback is wanted
    extra = _EXTRA_OF.get(package, "all")
    return _say(f"{package} is not installed; run: pip install 'taskscope[{extra}]'")


def _say(sentence: str) -> int:
    one_line = " ".join(sentence.split())
    print(f"taskscope: {one_line}", file=sys.stderr)  # noqa: T201 # the command line speaks here
    return EXIT_BAD_INPUT


if __name__ == "__main__":
    main()
