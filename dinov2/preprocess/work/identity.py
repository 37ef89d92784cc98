"""Names that say nothing: HMACs of identities under a secret key.

In: a key file. Out: an `Identity` that turns UIDs, patient ids and paths into 16 hexadecimal digits. The same key gives
the same names, so films of one patient stay together over several conversions that share a `--key-file`; without the
key nobody can try a list of names.
"""

import errno
import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dinov2.errors import Dinov2Error

KEY_BYTES = 32
SHORTEST_KEY_BYTES = 16
ID_LETTERS = 16  # 64 bits: two of four million films share an id with a chance of 4e-7
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)  # a file system without hard links


@dataclass(frozen=True)
class Identity:
    """Names under one key."""

    key: bytes = field(repr=False)

    def name(self, kind: str, value: str) -> str:
        """The name of a value; `kind` (image, patient, study, path) keeps equal texts of different kinds apart."""
        text = f"{kind}\0{value}".encode("utf-8", "surrogateescape")
        return hmac.digest(self.key, text, hashlib.sha256).hex()[:ID_LETTERS]

    @property
    def fingerprint(self) -> str:
        """What may be written down to recognise the key."""
        return self.name("key", "")


def read_or_create(path: Path, *, create: bool) -> Identity:
    """The identity of a key file; where it is absent and `create` is set, a new random key is written with mode 600.

    Several processes may do so at once: the first one's key is everybody's. Raises Dinov2Error where the file is absent
    or holds fewer than 16 bytes, OSError where it cannot be written.
    """
    if create and not path.exists():
        _write_key(path)
    make_one = f"Make one: (umask 077; head -c {KEY_BYTES} /dev/urandom | xxd -p -c 64 > {path})"
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise Dinov2Error(f"{path}: the key file cannot be read ({error.strerror}). {make_one}") from error
    if len(key) < SHORTEST_KEY_BYTES:
        raise Dinov2Error(f"{path}: the key has {len(key)} bytes; at least {SHORTEST_KEY_BYTES} are needed. {make_one}")
    return Identity(key)


def _write_key(path: Path) -> None:
    """A new key appears whole or not at all, and never in the place of one that is there."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    _write(partial)
    try:
        os.link(partial, path)
    except FileExistsError:
        pass  # another process was first
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        with suppress(FileExistsError):
            _write(path)
    finally:
        partial.unlink()


def _write(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(secrets.token_hex(KEY_BYTES) + "\n")
        stream.flush()
        os.fsync(stream.fileno())  # pictures are named under it from now on
