"""The file of access tokens: read, changed in one step, and watched for changes that others make."""

import fcntl
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from sessiond import tokens
from sessiond.errors import TokenError
from sessiond.tokens import Tokens

T = TypeVar("T")

_Sign = tuple[int, int, int]
"""What tells one version of the file from the next without reading it: a change replaces it, so its inode is another."""


def read(path: Path) -> Tokens | None:
    """The tokens in the file; None if there is no file. TokenError if it cannot be used."""
    try:
        return tokens.read(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as e:
        raise TokenError(f"the tokens in {path} cannot be read: {e.strerror}.") from e
    except TokenError as e:
        raise TokenError(f"the tokens in {path} cannot be used: {str(e).rstrip('.')}.") from e


def change(path: Path, edit: Callable[[Tokens], tuple[Tokens, T]]) -> T:
    """Replaces what `path` holds by what `edit` makes of it, and answers what edit says of that.

    A reader finds the old file or the new one, whole, and so does who comes back after a power loss. Two who change it
    at once go one after the other. The file is made, with its folder, if it is not there; only its owner may read it.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The folder is locked: a lock on a file that gets replaced would be on the old one.
        folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            after, result = edit(read(path) or Tokens())
            _replace(path, tokens.write(after))
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as e:
        raise TokenError(f"the tokens in {path} cannot be written: {e.strerror}.") from e
    return result


def _replace(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=path.name + ".", dir=path.parent)  # mode 0600
    try:
        with open(handle, "wb") as file:
            if os.geteuid() == 0:  # root makes it for the user of the daemon, whose folder this is
                owner = path.parent.stat()
                os.fchown(handle, owner.st_uid, owner.st_gid)
            file.write(data)
            file.flush()
            os.fsync(handle)
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


class Watch:
    """The tokens of a running daemon. `tokens` None: there was no file so far, and nobody is asked for a token.

    A file that is gone or broken changes nothing: to let everybody in takes a restart, never an accident.
    """

    def __init__(self, path: Path | None) -> None:
        """Raises TokenError if there is a file that cannot be used. `path` None: there never is one."""
        self.path = path
        self._sign = self._look()
        self.tokens = None if path is None else read(path)

    def has_changed(self) -> bool:
        """Whether there are other tokens than before; reads the file if it is another. TokenError, once for each
        version of the file, if it cannot be used."""
        if (sign := self._look()) == self._sign or self.path is None:
            return False
        self._sign = sign
        found = read(self.path)
        if found is None:
            if self.tokens is not None:
                raise TokenError(f"the tokens in {self.path} are gone.")
            return False
        self.tokens = found
        return True

    def _look(self) -> _Sign | None:
        try:
            found = os.stat(self.path) if self.path is not None else None
        except OSError:
            return None
        return None if found is None else (found.st_ino, found.st_mtime_ns, found.st_size)
