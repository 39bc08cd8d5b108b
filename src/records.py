"""The repository's root, cache keys, and files that are written whole or not at all."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

ROOT = Path(__file__).parent.parent
# Raise it by hand when the same data, weights and settings come to mean other embeddings or another training run.
CACHE_VERSION = 2


def library_versions() -> dict[str, str]:
    """The versions that stand beside every result."""
    return {package: version(package) for package in ("torch", "transformers", "numpy", "scikit-learn")}


def cache_key(*parts: object) -> str:
    """A short name for a cached result, made of all that it depends on; `parts` are what JSON can write."""
    content = json.dumps([CACHE_VERSION, library_versions(), *parts])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def output_folder(path: Path | str) -> Path:
    """Make the folder and prove that it can be written to, before any work is done; raises `PermissionError`."""
    path = Path(path).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise PermissionError(f"the output folder {path} cannot be written to: {error.strerror}") from None
    return path


def write_atomically(path: Path | str, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path beside `path`, then move it there: the old file or the new, never half."""
    path = Path(path)
    temporary = path.with_name(f".{uuid4().hex}.{path.name}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path | str, content: object) -> None:
    text = json.dumps(content, indent=1) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Path | str):
    """Raises `ValueError` naming the file when it is no JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None


def write_with_checksum(path: Path | str, content: bytes) -> None:
    """Write atomically, the content behind its own sha256."""
    write_atomically(path, lambda temporary: temporary.write_bytes(hashlib.sha256(content).digest() + content))


def read_with_checksum(path: Path | str) -> bytes:
    """What `write_with_checksum` wrote; raises `ValueError` when the file was cut or altered since."""
    stored = Path(path).read_bytes()
    checksum, content = stored[:32], stored[32:]
    if hashlib.sha256(content).digest() != checksum:
        raise ValueError(f"{path} is not as it was written: remove it and run again")
    return content
