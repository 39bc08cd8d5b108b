import json
import os
import re

import numpy as np
import pytest
from datasets import Dataset

from src.corpus import (
    check_sentences,
    load_pairs,
    load_sentences,
    names_and_numbers,
    output_folder,
    split_sentences,
    swap_names,
    write_atomically,
)

ROWS = ["NA", "None", 'a "quoted", sentence', "Ünïcode ⚽", "null"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".jsonl", ".parquet"])
def test_every_format_and_the_sentence_na(tmp_path, suffix):
    path, dataset = tmp_path / f"corpus{suffix}", Dataset.from_dict({"sentence": ROWS, "sport": list("abcde")})
    if suffix == ".txt":
        path.write_text("\n".join(ROWS) + "\n")
    elif suffix in (".csv", ".tsv"):
        dataset.to_csv(path, sep="," if suffix == ".csv" else "\t")
    else:
        {".jsonl": dataset.to_json, ".parquet": dataset.to_parquet}[suffix](path)
    before = path.read_bytes()
    loaded = load_sentences(path)
    assert loaded["sentence"][:] == ROWS
    assert suffix == ".txt" or loaded["sport"][:] == list("abcde")
    assert path.read_bytes() == before


def test_an_edited_file_is_read_anew(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("one\ntwo\n")
    stamp = path.stat()
    load_sentences(path)
    path.write_text("six\nten\n")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert load_sentences(path)["sentence"][:] == ["six", "ten"]


def test_another_column(tmp_path):
    path = tmp_path / "corpus.csv"
    path.write_text("id,words\n1,left hook\n2,right hook\n")
    assert load_sentences(path, "words").column_names == ["id", "sentence"]
    with pytest.warns(UserWarning, match=r"no column 'sentence': the sentences are those of 'words'"):
        assert load_sentences(path)["sentence"][:] == ["left hook", "right hook"]  # the only one with text
    path.write_text("title,words\nboxing,left hook\nboxing,right hook\n")
    with pytest.raises(ValueError, match="no column 'sentence', only title, words: set text_column"):
        load_sentences(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sentence\n", "no rows could be read from"),
        ("", "no rows could be read from"),
        ("sentence\nalone\n", "has 1 sentences: at least 2"),
        ("sentence\n12\n13\n", "row 1: 12 is no text but int"),
        ('sentence\nfine\n"  "\n', "has 1 sentences: at least 2"),  # the blank one is no sentence
    ],
)
def test_bad_rows_are_named(tmp_path, content, message):
    path = tmp_path / "corpus.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_sentences(path)


def test_null_in_a_json_file(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(json.dumps({"sentence": s}) for s in ("fine", None, "fine too")))
    with pytest.raises(ValueError, match="row 2: None is no text but NoneType"):
        load_sentences(path)


def test_missing_file_and_unknown_format(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*sport_sentences\.csv"):
        load_sentences(tmp_path / "sport_sentences.csv")
    (tmp_path / "corpus.docx").touch()
    with pytest.raises(ValueError, match=r"is a \.docx file: one of the formats that can be read is needed, \.csv"):
        load_sentences(tmp_path / "corpus.docx")


def test_pairs_need_their_columns(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("sentence1,sentence2\na,b\nc,d\n")
    with pytest.raises(ValueError, match="no column 'grade'"):
        load_pairs(path)
    path.write_text("sentence1,sentence2,grade\nNA,b,0\nc,d,4\n")
    assert load_pairs(path)["sentence1"][:] == ["NA", "c"]


def test_split_is_seeded_and_in_proportion():
    dataset = Dataset.from_dict({"sentence": [str(i) for i in range(200)]})
    splits = [split_sentences(dataset, seed)["split"][:] for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]
    assert [splits[0].count(s) for s in ("train", "validation", "test")] == [140, 20, 40]
    twice = Dataset.from_dict({"sentence": [str(i) for i in range(200)] * 2})
    one, other = np.array(split_sentences(twice)["split"][:]).reshape(2, 200)
    assert (one == other).all()  # or a test sentence would have been trained on
    own = dataset.add_column("split", ["test"] * 200)
    assert split_sentences(own) is own


def test_output_folder_that_cannot_be_written(tmp_path):
    assert output_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(PermissionError, match="cannot be written to"):
        output_folder(tmp_path / "file" / "below")
    with pytest.raises(PermissionError, match="cannot be written to"):
        output_folder("/proc/nothing")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    write_atomically(path, lambda p: p.write_text("old"))

    def fail(p):
        p.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_check_sentences_takes_lists():
    check_sentences(["a", "b"])
    with pytest.raises(ValueError, match="row 2: 3 is no text"):
        check_sentences(["a", 3])


def test_names_are_found_in_raw_text():
    sentences = [
        "Goal! Ana Silva-Reyes scores in the 74th minute for Rovers: Silva-Reyes again.",
        "The keeper of rovers is beaten 3.5 times a match, says Ana.",
        "“Ana is the best”, they say. Minutes later it is two.",
    ]
    assert names_and_numbers(sentences) == [
        ["Ana", "Silva-Reyes", "74th", "Silva-Reyes"],  # Rovers is written small elsewhere; Goal begins a sentence
        ["3.5", "Ana"],
        ["Ana"],
    ]


def test_swapping_keeps_what_happens():
    sentences = [f"In {place} it was {who} {who} who hit {n} fours." for place, who, n in
                 (("Ely", "Bo", 7), ("Bath", "Cy", 81), ("Hove", "Di", 305))]  # fmt: skip
    found = names_and_numbers(sentences)
    copies = swap_names(sentences, found, seed=1)
    assert copies == swap_names(sentences, found, seed=1) != swap_names(sentences, found, seed=2)
    for copy in copies:
        place, who, again, number = re.fullmatch(r"In (\w+) it was (\w+) (\w+) who hit (\d+) fours\.", copy).groups()
        assert who == again != place
        assert [place, who, who, number] in found  # all from one and the same sentence
    assert swap_names(["no name here", "none here"], [[], []], 0) == ["no name here", "none here"]
    assert swap_names(["Only 7 for Bo", "Only 7 for Bo"], [["7", "Bo"], ["7", "Bo"]], 0) == ["Only 7 for Bo"] * 2


@pytest.mark.parametrize("suffix", ["txt", "csv", "tsv", "jsonl"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda text: text.replace("ü", "u").encode().replace(b"Fu", b"F\xfc"),
            "byte 0xfc is no UTF-8. Save the file in UTF-8",
        ),
        (lambda text: text.replace("ü", "\0").encode(), "a NUL byte; is it a text file, in UTF-8"),
    ],
)
def test_the_line_that_is_no_utf_8_is_named(tmp_path, suffix, spoil, message):
    lines = ["Torwart", "Füße", "Ball"]
    if suffix == "jsonl":
        lines = [json.dumps({"sentence": line}, ensure_ascii=False) for line in lines]
    elif suffix != "txt":
        lines.insert(0, "sentence")
    path = tmp_path / f"corpus.{suffix}"
    path.write_bytes(spoil("\n".join(lines)))
    with pytest.raises(ValueError, match=f"corpus.{suffix}, line {3 if suffix in ('csv', 'tsv') else 2}: {message}"):
        load_sentences(path)


@pytest.mark.parametrize("suffix", ["txt", "csv", "jsonl"])
def test_a_byte_order_mark_is_no_part_of_a_sentence(tmp_path, suffix):
    content = {
        "txt": "one\r\ntwo\r\n",
        "csv": "sentence\none\ntwo\n",
        "jsonl": '{"sentence": "one"}\n{"sentence": "two"}\n',
    }
    path = tmp_path / f"corpus.{suffix}"
    path.write_bytes(b"\xef\xbb\xbf" + content[suffix].encode())
    assert load_sentences(path)["sentence"][:] == ["one", "two"]


def test_blank_rows_are_left_out_and_counted_and_a_folder_is_one_corpus(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\n  \n")
    (tmp_path / "b.txt").write_text("two\nthree\u2028and on\n")
    with pytest.warns(UserWarning, match="2 blank rows of 5 were left out"):
        assert load_sentences(tmp_path)["sentence"][:] == ["one", "two", "three\u2028and on"]
    (tmp_path / "c.csv").touch()
    with pytest.raises(ValueError, match=r"holds \.csv and \.txt: one of the formats that can be read is needed"):
        load_sentences(tmp_path)
    rows = [{"sentence": s} for s in ("one", " ", None, "four")]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match="row 3: None is no text"):  # the blank one counts
        load_sentences(tmp_path / "d.jsonl")
