"""The program `advcl`: where it is, and how it is run."""
from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

Path = str | os.PathLike[str]


class ProgramError(RuntimeError):
    """The program ended with another exit code than 0. `code` is it: 1 tried and failed, 2 the input is at fault, 3 the machine is."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def program() -> str:
    """Path of the program: the environment variable ADVCL, what was installed with this package, or the first on PATH."""
    named = os.environ.get("ADVCL")
    if named:
        return named
    name = "advcl.exe" if sys.platform == "win32" else "advcl"
    beside = pathlib.Path(sysconfig.get_path("scripts")) / name
    found = str(beside) if beside.is_file() else shutil.which("advcl")
    if found is None:
        raise FileNotFoundError("the program advcl is not installed: pip install advcl, or name it in the environment variable ADVCL")
    return found


def run(*arguments: Path, quiet: bool = True) -> str:
    """Runs the program and returns what it prints on standard output. With `quiet=False` its progress goes to standard error."""
    command = [program(), *(os.fspath(argument) for argument in arguments)]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
        encoding="utf-8",
    )
    if done.returncode != 0:
        message = (done.stderr or "").strip() or f"advcl ended with exit code {done.returncode}"
        raise ProgramError(message, done.returncode)
    return done.stdout
