import json
import os
import random
import re
import subprocess
import sys

import numpy as np
import pytest
from datasets import Dataset

from src.corpus import (
    check_sentences,
    describe,
    load_pairs,
    load_sentences,
    names_and_numbers,
    near_duplicates,
    output_folder,
    split_sentences,
    swap_names,
    write_atomically,
)
from tests.hub import stand_in_hub

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
    own = dataset.add_column("split", ["train"] * 100 + ["test"] * 100)
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
    assert swap_names(["Only 7 for Bo"] + [""] * 99, [["7", "Bo"]] + [["8", "Cy"]] + [[]] * 98, 0)[0][:6] == "Only 8"
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


def test_near_duplicates_are_those_of_a_naive_search():
    rng = random.Random(0)
    sentences = ["".join(rng.choices("abcdefgh ", k=rng.randint(20, 60))) for _ in range(300)]
    for sentence in sentences[:200]:  # of every similarity
        letters = list(sentence)
        for place in rng.sample(range(len(letters)), rng.randint(0, 4)):
            letters[place] = rng.choice("xyz")
        sentences.append("".join(letters))
    sentences += [sentence + digit for sentence in sentences[:20] for digit in "12"]
    rng.shuffle(sentences)

    def alike(one, other):
        if re.sub(r"\D", "", one) != re.sub(r"\D", "", other):
            return 0
        one, other = (" ".join(sentence.split()) for sentence in (one, other))
        runs = [{s[k : k + 5] for k in range(len(s) - 4)} for s in (one, other)]
        return len(runs[0] & runs[1]) / len(runs[0] | runs[1])

    for similarity in (0.85, 0.9, 1.0):
        kept, expected = [], []
        for row, sentence in enumerate(sentences):
            found = any(alike(sentence, sentences[other]) >= similarity for other in kept)
            (expected if found else kept).append(row)
        assert 10 < len(expected) < 200
        assert near_duplicates(sentences, similarity) == expected
    with pytest.raises(ValueError, match=r"similarity is 0\.7: from 0\.8 on two sentences are near-duplicates"):
        near_duplicates(sentences, 0.7)
    different = [
        "1.5 goals",
        "15 goals",
        "-5 degrees",
        "5 degrees",
        "C++",
        "C#",
        "C",
        "राम ने फल खाया",
        "राम ने फूल खाया",
        "⚽",
        "🏀",
    ]
    assert near_duplicates(different) == []


def test_near_duplicates_are_left_out_and_counted_where_asked(tmp_path):
    path, one = tmp_path / "corpus.txt", "The keeper of the home side saved it with the tip of a glove"
    path.write_text("\n".join([one, one.upper() + "!", " ", one, "⚽", "🏀", "ok", "no"]))
    with pytest.warns(UserWarning) as warned:
        assert load_sentences(path, duplicates_from=0.9)["sentence"][:] == [one, "⚽", "🏀", "ok", "no"]
    assert [str(warning.message).removeprefix(str(path)) for warning in warned] == [
        ": 1 blank rows of 8 were left out",
        f": 2 sentences of 7 repeat an earlier one and were left out, "
        f"such as {one.upper() + '!'!r} (duplicates_from = 0.9; None keeps them)",
    ]
    with pytest.warns(UserWarning, match="1 blank rows"):
        assert len(load_sentences(path)) == 7  # all are kept unless asked


def test_columns_of_groups_and_another_text_beside_a_sentence(tmp_path):
    path = tmp_path / "corpus.csv"
    path.write_text("sentence,text,sport,year\nold,one,1,1999\nold,two,2,1999\nold,three,2,1999\n")
    groups = {"sport": ["1", "2", "2"], "year": [1999] * 3}
    assert load_sentences(path, "text")[:] == {"sentence": ["one", "two", "three"]} | groups
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(json.dumps({"sentence": s, "sport": g}) for s, g in zip("abc", ("x", None, None))))
    assert load_sentences(path)["sport"][:] == ["x", "", ""]


def test_splits_that_cannot_be_used_are_refused():
    with pytest.raises(ValueError, match="4 sentences are too few to train on some and test on others"):
        split_sentences(Dataset.from_dict({"sentence": list("abcd")}))
    with pytest.raises(ValueError, match="column split holds dev, train: train and test are needed"):
        split_sentences(Dataset.from_dict({"sentence": list("ab"), "split": ["train", "dev"]}))


def test_a_path_is_not_looked_for_on_the_hub(monkeypatch):
    monkeypatch.setattr("src.corpus.ask_hub", lambda question: pytest.fail("asked"))
    for path in ("./mine/corpus", "../mine", "/mine/corpus", "mine/corpus.csv", "a/b/c", "corpus"):
        with pytest.raises(FileNotFoundError, match="no file"):
            load_sentences(path)


def test_a_corpus_is_described():
    sentences = ["Гол! Great goal", "Гол! Great goal!", "one", "one"]
    assert describe(sentences, lengths=[5, 6, 3, 3], max_length=5) == {
        "sentences": "4",
        "repeats": "1",
        "repeats but for a few letters": "2",
        "words": "2 in the median, 1 to 3",
        "tokens": "4 in the median, 3 to 6",
        "longer than 5 tokens": "1",
        "letters": "latin 80.0%, cyrillic 20.0%",
    }


def test_a_hub_dataset_is_a_corpus_and_is_found_again_offline(tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "train.csv").write_text("text,label\nleft hook,1\nright hook,2\n")
    server, environment = stand_in_hub({"owner/corpus": tmp_path / "corpus"}, tmp_path / "home")
    script = (
        "import sys; from src.corpus import load_sentences\n"
        "try: print(load_sentences(sys.argv[1])['sentence'][:])\n"
        "except Exception as error: print(type(error).__name__, error)"
    )

    def load(name, offline="0"):
        run = [sys.executable, "-c", script, name]
        environment["HF_HUB_OFFLINE"] = offline
        return subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60).stdout

    assert load("owner/corpus") == "['left hook', 'right hook']\n"
    assert load("owner/none").startswith("FileNotFoundError owner/none is no file here, and no dataset of the hub: 404")
    server.shutdown()
    server.server_close()
    message = "ConnectionError owner/corpus is no file here, and the hub, which may have it, did not answer"
    assert load("owner/corpus").startswith(message)
    assert load("owner/corpus", offline="1") == "['left hook', 'right hook']\n"
