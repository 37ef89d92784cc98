"""Names that say nothing: HMACs of identities under a secret key.

In: a key file. Out: an `Identity` that turns UIDs, patient ids and paths into 16 hexadecimal digits. The same key gives
the same names, so films of one patient stay together over several conversions that share a `--key-file`; without the
key nobody can try a list of names.
"""

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from dinov2.errors import Dinov2Error

KEY_BYTES = 32
ID_LETTERS = 16  # 64 bits: two of four million films share an id with a chance of 4e-7


@dataclass(frozen=True)
class Identity:
    """Names under one key."""

    key: bytes = field(repr=False)

    def name(self, kind: str, value: str) -> str:
        """The name of a value; `kind` (image, patient, study, path) keeps equal texts of different kinds apart."""
        return hmac.new(self.key, f"{kind}\0{value}".encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()[
            :ID_LETTERS
        ]

    @property
    def fingerprint(self) -> str:
        """What may be written down to recognise the key."""
        return self.name("key", "")


def read_or_create(path: Path, *, create: bool) -> Identity:
    """The identity of a key file; where it is absent and `create` is set, a new random key is written with mode 600.

    Raises Dinov2Error where the file is absent, or holds fewer than 16 bytes.
    """
    if create and not path.exists():
        _write_key(path)
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise Dinov2Error(
            f"{path}: the key file cannot be read ({error.strerror}). Make one: head -c 32 /dev/urandom | xxd -p -c "
            f"64 > {path}"
        ) from error
    if len(key) < 16:
        raise Dinov2Error(
            f"{path}: the key has {len(key)} bytes; at least 16 are needed. Make one: head -c 32 /dev/urandom | xxd "
            f"-p -c 64 > {path}"
        )
    return Identity(key)


def _write_key(path: Path) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(secrets.token_hex(KEY_BYTES) + "\n")
    partial.replace(path)
