"""Check that file locks work on the file system of a store."""

import errno
import warnings
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

from transferability.errors import UserError

LOCK_SECONDS = 3  # to wait for another process that is checking the locks
_NO_LOCKS = (
    "two processes could train one run at once; "
    "put the store on a local disk, NFS or Lustre with flock"
)


def check_locks(root: Path) -> None:
    """Check that locks below ``root`` exclude a second holder, as training by several processes
    requires.

    Raises:
        UserError: the store cannot be written, or its locks do not work.
    """
    try:
        why = _fault(root / ".lock")
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise UserError(f"store={root}: cannot be written: {error.strerror}") from error
        why = f"has no locks ({error.strerror})"
    if why:
        raise UserError(f"store={root}: this file system {why}: {_NO_LOCKS}")


def _fault(path: Path) -> str | None:
    """What is wrong with a lock at ``path``, or None.

    The file is kept, so a process that dies here leaves nothing else behind.
    """
    try:
        with (
            warnings.catch_warnings(action="ignore"),  # filelock's; the error has the same message
            FileLock(path, timeout=LOCK_SECONDS) as lock,
        ):
            # filelock's substitute, a file whose existence is the lock, outlives its process
            if isinstance(lock, SoftFileLock):
                return "has no locks"
            try:
                with FileLock(path, timeout=0):
                    return "has locks that exclude nobody"
            except Timeout:
                return None
    except Timeout:  # such a file exists: another process is checking, or has died
        return "has no locks"
