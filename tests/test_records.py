import importlib.util
import linecache
import shutil
import sys

import pytest

from src import records
from src.encoder import Encoder, load_encoder
from src.records import (
    ROOT,
    cache_key,
    output_folder,
    read_json,
    read_with_checksum,
    write_atomically,
    write_json,
    write_with_checksum,
)


def test_output_folder_that_cannot_be_written(tmp_path):
    assert output_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "below", "/proc/nothing"):
        with pytest.raises(PermissionError, match="cannot be written to"):
            output_folder(path)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"which": "old"})

    def fail(temporary):
        temporary.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomically(path, fail)
    assert read_json(path) == {"which": "old"}
    assert list(tmp_path.iterdir()) == [path]
    write_json(path, {"which": "new"})
    assert read_json(path) == {"which": "new"}


CONTENT = bytes(range(256))


@pytest.mark.parametrize(
    "damage",
    [
        lambda stored: b"",
        lambda stored: stored[:20],  # within the checksum
        lambda stored: stored[:32],  # all of the content is gone
        lambda stored: stored[:-1],
        lambda stored: stored + b"\0",
        lambda stored: b"\0" * len(stored),
        lambda stored: stored[:100] + bytes([stored[100] ^ 1]) + stored[101:],
        lambda stored: bytes([stored[0] ^ 1]) + stored[1:],
    ],
)
def test_a_file_that_was_cut_or_altered_is_refused(tmp_path, damage):
    path = tmp_path / "latest.pt"
    write_with_checksum(path, CONTENT)
    assert read_with_checksum(path) == CONTENT
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"latest\.pt"):
        read_with_checksum(path)


def test_a_cache_key_is_of_all_that_the_result_depends_on(monkeypatch):
    key = cache_key("embeddings", "mean", [[1, 2], [3]])
    assert cache_key("embeddings", "mean", [[1, 2], [3]]) == key
    for parts in (("training", "mean", [[1, 2], [3]]), ("embeddings", "mean", [[1, 2, 3]]), ("embeddings", "mean")):
        assert cache_key(*parts) != key
    with monkeypatch.context() as patch:
        patch.setattr(records, "CACHE_VERSION", records.CACHE_VERSION + 1)
        assert cache_key("embeddings", "mean", [[1, 2], [3]]) != key
    monkeypatch.setattr(records, "library_versions", lambda: {"torch": "0.1"})
    assert cache_key("embeddings", "mean", [[1, 2], [3]]) != key


def test_an_edited_comment_changes_no_cache_key(tmp_path):
    shutil.copytree(ROOT / "src", tmp_path / "src")
    for file in (tmp_path / "src").glob("*.py"):
        file.write_text(file.read_text() + "# one comment more\n")
    specification = importlib.util.spec_from_file_location("edited_records", tmp_path / "src" / "records.py")
    edited = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(edited)
    assert edited.cache_key("embeddings", [1, 2]) == cache_key("embeddings", [1, 2])


opened: list[str] | None = None  # the files opened since a test set it to a list


def _note_what_is_opened(event, arguments):
    if event == "open" and opened is not None:
        opened.append(str(arguments[0]))


sys.addaudithook(_note_what_is_opened)  # sees every way to open a file, those of inspect and of C code among them


def test_what_is_cached_depends_on_no_source_file(tiny_folder, some_sentences, tmp_path, monkeypatch):
    """A raised CACHE_VERSION makes encode anew, and no edit of the code does."""
    load_encoder(str(tiny_folder), "mean", cache=tmp_path).encode(some_sentences, progress=False)
    encoder = load_encoder(str(tiny_folder), "mean", cache=tmp_path)
    monkeypatch.setattr(Encoder, "encode_tokens", lambda *arguments: pytest.fail("encoded anew"))
    linecache.clearcache()
    monkeypatch.setattr(sys.modules[__name__], "opened", [])
    encoder.encode(some_sentences, progress=False)
    assert any(name.startswith(str(tmp_path)) for name in opened)  # the hook works
    assert not [name for name in opened if name.startswith(str(ROOT / "src"))]
    monkeypatch.setattr(records, "CACHE_VERSION", records.CACHE_VERSION + 1)
    with pytest.raises(pytest.fail.Exception, match="encoded anew"):
        encoder.encode(some_sentences, progress=False)
