import json
import os
import random
import re

import pandas as pd
import pytest

from src import hub
from src.corpus import (
    check_sentences,
    describe,
    draw_sentences,
    load_sentences,
    near_duplicates,
    split_sentences,
)
from tests.hub import StandInHub, use_hub

ROWS = ["NA", "None", 'a "quoted", sentence', "Ünïcode ⚽", "null", "007", "2024-01-31", "one\u2028line"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".jsonl", ".parquet"])
def test_every_format_and_the_sentence_na(tmp_path, suffix):
    path, table = tmp_path / f"corpus{suffix}", pd.DataFrame({"sentence": ROWS, "sport": list("abcdefgh")})
    if suffix == ".txt":
        path.write_text("\n".join(ROWS) + "\n")
    elif suffix in (".csv", ".tsv"):
        table.to_csv(path, sep="," if suffix == ".csv" else "\t", index=False)
    elif suffix == ".jsonl":
        table.to_json(path, orient="records", lines=True, force_ascii=False)
    else:
        table.to_parquet(path)
    before = path.read_bytes()
    loaded = load_sentences(path)
    assert loaded["sentence"].tolist() == ROWS
    assert suffix == ".txt" or loaded["sport"].tolist() == list("abcdefgh")
    assert path.read_bytes() == before


def test_an_edited_file_is_read_anew(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("one\ntwo\n")
    stamp = path.stat()
    load_sentences(path)
    path.write_text("six\nten\n")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert load_sentences(path)["sentence"].tolist() == ["six", "ten"]


def test_another_column(tmp_path):
    path = tmp_path / "corpus.csv"
    path.write_text("id,words\n1,left hook\n2,right hook\n")
    assert list(load_sentences(path, "words")) == ["id", "sentence"]
    with pytest.warns(UserWarning, match="'words' holds the sentences"):
        assert load_sentences(path)["sentence"].tolist() == ["left hook", "right hook"]  # the only one with text
    path.write_text("title,words\nboxing,left hook\nboxing,right hook\n")
    with pytest.raises(ValueError, match="only title, words: set text_column"):
        load_sentences(path)
    for name in ("Text", "TEXT", "text"):
        path.write_text(f"id,{name}\n1,left hook\n2,right hook\n")
        assert load_sentences(path, name)["sentence"].tolist() == ["left hook", "right hook"]


def test_a_sentence_without_a_template_has_a_wording_of_its_own(tmp_path):
    path = tmp_path / "corpus.jsonl"
    rows = [{"sentence": s, "sport": "golf", "template": None if s in "cd" else "t"} for s in "abcd"]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert load_sentences(path)["template"].tolist() == ["t", "t", "c", "d"]


def test_a_blank_cell_is_no_group(tmp_path):
    path = tmp_path / "corpus.csv"
    path.write_text("sentence,sport,event,template\na,golf,putt,x\nb,golf,,\nc,, ,\nd,golf,,y\n")
    table = load_sentences(path)
    assert table["sport"].tolist() == ["golf", "golf", "c", "golf"]
    assert table["event"].tolist() == ["putt", "b", "c", "d"]
    assert table["template"].tolist() == ["x", "b", "c", "y"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sentence\n", "has no rows"),
        ("", "is empty"),
        ("sentence\nalone\n", "has 1 sentences"),
        ("sentence\n12\n13\n", "row 1: 12 "),
        ('sentence\nfine\n"  "\n', "has 1 sentences"),  # the blank one is no sentence
        ("sentence,sport\nfine,golf\na comma, unquoted,golf\n", "line 3: 3 columns, and 2 in the header"),
        ("sentence\na comma, unquoted\nanother, unquoted\n", "line 2: 2 columns, and 1 in the header"),
        ("The striker scored twice in Turin\nThe keeper saved\n", "one column, whose name is 'The striker scored"),
        ("id|sentence\n0|fine\n", "one column, whose name is 'id|sentence'"),
        ("text;topic\nfine;golf\na semicolon; unquoted;golf\n", "line 3: 3 columns"),
        ('sentence\nfine\n"a quote, "and another", here"\n', "line 3: .*each quote is written twice"),
        ('sentence\nfine\n"never closed\n', "line 3: .*each quote is written twice"),
        ('sentence\nfine\n"stray' + "\nfine" * 20 + '"\n', "line 3: a quote opens here and closes 20 lines below"),
        ("sentence,sentence\none,two\n", "'sentence' twice"),
    ],
)
def test_bad_rows_are_named(tmp_path, content, message):
    path = tmp_path / "corpus.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_sentences(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("text;topic\na comma, here;billing\ntwo, commas, here;orders\n", ["a comma, here", "two, commas, here"]),
        ("text\ttopic\none, two\tbilling\nthree\torders\n", ["one, two", "three"]),
        ('id;text;"notes, and, more"\n0;one, two;\n1;three;none\n', ["one, two", "three"]),
        (" text ,topic\none,billing\ntwo,orders\n", ["one", "two"]),  # a blank in the header
        (",text\n0,one\n1,two\n", ["one", "two"]),  # an index without a name
        ('text,topic\n"a comma, here",billing\n\n"a ""quote""",orders\n', ["a comma, here", 'a "quote"']),
        ('say "no" in text\nhe said "no"\nshe did not\n', ['he said "no"', "she did not"]),
    ],
)
@pytest.mark.filterwarnings("ignore:.*holds the sentences")
def test_tables_as_people_have_them(tmp_path, content, expected):
    path = tmp_path / "data[1].csv"  # no pattern
    path.write_text(content)
    (tmp_path / "data1.csv").write_text("text\nanother\nfile\n")
    column = "sentence" if "say" in content else "text"
    assert load_sentences(path, column)["sentence"].tolist() == expected


def test_a_row_over_several_lines_is_one_and_said(tmp_path):
    (tmp_path / "corpus.csv").write_text('text\n"one\ntwo"\nthree\n')
    with pytest.warns(UserWarning, match="1 rows over several lines, such as line 2"):
        assert load_sentences(tmp_path / "corpus.csv")["sentence"].tolist() == ["one\ntwo", "three"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfes\x00e\x00", r"is UTF-16\. Save the file in UTF-8"),
        (b'{"sentence": "fine"}\n{"sentence": "open}\n', "line 2: Unterminated string"),
        (b'{"sentence": "fine"}\n"alone"\n', "line 2: 'alone' is no object in braces"),
        (b'[{"sentence": "fine"}, "alone", {"sentence": "fine"}]\n', "line 1: 'alone' is no object in braces"),
    ],
)
def test_bad_lines_of_a_json_file_are_named(tmp_path, content, message):
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_sentences(path)


def test_what_excel_and_json_do_to_a_table(tmp_path):
    path = tmp_path / "corpus.csv"
    for content in ("\n\nSentence;topic;\none;a;\ntwo\n;;\n", "sentence,topic\none,a,,\ntwo\n,\n"):
        path.write_text(content)
        assert load_sentences(path)["sentence"].tolist() == ["one", "two"]
    (tmp_path / "corpus.jsonl").write_text('[{"sentence": "one"}, {"sentence": "two"}]')
    assert load_sentences(tmp_path / "corpus.jsonl")["sentence"].tolist() == ["one", "two"]
    (tmp_path / "table.txt").write_text("id\tsentence\n0\tone\n1\ttwo\n")
    with pytest.raises(ValueError, match=r"is a table with tabs: rename it to \.tsv"):
        load_sentences(tmp_path / "table.txt")


def test_short_rows_are_counted(tmp_path):
    (tmp_path / "corpus.csv").write_text("id,sentence\n1,It came late\nand broken\n2,Good\n")
    with pytest.warns(UserWarning, match="1 rows have fewer cells than the header, such as line 3"):
        load_sentences(tmp_path / "corpus.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "id,sentence,topic\n1,It came late\nand broken,billing\n2,Good,praise\n",
            "line 2: 2 of 3 columns, and as few",
        ),
        ("sentence,id\nOne;1\nTwo;2\n", "line 2: 1 of 2 columns, as in all rows. Is it the header's delimiter"),
        ("1,Great phone\n2,Bad phone\n", "line 1: a column named '1'. Line 1 must name the columns"),
    ],
)
def test_no_cell_lands_in_another_column(tmp_path, content, message):
    (tmp_path / "corpus.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_sentences(tmp_path / "corpus.csv")


def test_capitals_and_blanks_in_the_names_of_columns_do_not_matter(tmp_path):
    (tmp_path / "corpus.csv").write_text("Sentence, Split ,SPORT\none,Train,judo\ntwo,dev,golf\nthree,TEST,golf\n")
    table = load_sentences(tmp_path / "corpus.csv")
    assert table["split"].tolist() == ["train", "validation", "test"]
    assert table["sport"].tolist() == ["judo", "golf", "golf"]


def test_what_is_no_text_is_refused_and_not_passed_over(tmp_path):
    rows = [{"id": "a", "text": "One."}, {"id": "b", "text": ["Two."]}, {"id": "c", "text": "Three."}]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match=r"row 2: \['Two.'\] is no text"):
        load_sentences(tmp_path / "corpus.jsonl")
    rows[1]["text"] = "half \ud83d"
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match="line 2: half a character"):
        load_sentences(tmp_path / "corpus.jsonl")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("mine.csv.txt", "id,sentence\n1,One\n", r"is a \.csv file by its name"),
        ("mine.txt", '{"text": "One"}\n{"text": "Two"}\n', r"one JSON object a line: rename it to \.jsonl"),
    ],
)
def test_what_is_named_txt_and_is_none(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        load_sentences(tmp_path / name)


def test_files_that_cannot_be_read_are_named(tmp_path):
    for name in ("a.csv", "b.csv.gz", "c.xlsx", "README.txt"):
        (tmp_path / name).write_text("sentence\none\ntwo\n")
    with pytest.warns(UserWarning, match=r"b\.csv\.gz, c\.xlsx cannot be read and were left out"):
        assert load_sentences(tmp_path)["sentence"].tolist() == ["one", "two"]


def test_files_of_a_folder_have_the_same_columns(tmp_path):
    for name, header in {"a.csv": "sentence", "b.csv": "text", "._a.csv": "none", "~$a.csv": "none"}.items():
        (tmp_path / name).write_text(f"{header}\none\ntwo\n")
    with pytest.raises(ValueError, match=r"b\.csv has the columns text, .*a\.csv has sentence"):
        load_sentences(tmp_path)


def test_texts_of_a_json_file_stay_texts(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(json.dumps({"sentence": s}) for s in ("007", "12")))
    assert load_sentences(path)["sentence"].tolist() == ["007", "12"]
    path.write_text("\n".join(json.dumps({"sentence": s}) for s in ("fine", None, "fine too")))
    with pytest.raises(ValueError, match="row 2: "):
        load_sentences(path)


def test_missing_file_and_unknown_format(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"there is no file {tmp_path / 'corpus.csv'}"):
        load_sentences(tmp_path / "corpus.csv")
    (tmp_path / "corpus.docx").touch()
    with pytest.raises(ValueError, match=r"\.docx file.*\.csv"):
        load_sentences(tmp_path / "corpus.docx")


def test_split_is_seeded_and_in_proportion():
    table = pd.DataFrame({"sentence": [str(i) for i in range(200)]})
    splits = [split_sentences(table, seed)["split"].tolist() for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]
    assert [splits[0].count(s) for s in ("train", "validation", "test")] == [140, 20, 40]
    twice = split_sentences(pd.concat([table, table], ignore_index=True))
    one, other = twice["split"].to_numpy().reshape(2, 200)
    assert (one == other).all()  # or a test sentence would have been trained on
    own = table.assign(split=["train"] * 100 + ["test"] * 100)
    assert split_sentences(own).equals(own)
    assert "split" not in table


def test_sentences_are_drawn_of_one_split_and_none_twice():
    table = pd.DataFrame({"sentence": [f"s{row % 50}" for row in range(100)], "split": ["train"] * 75 + ["test"] * 25})
    drawn = draw_sentences(table, "train", 30)
    assert len(set(drawn["sentence"])) == len(drawn) == 30
    assert set(drawn["split"]) == {"train"}
    assert drawn.index.tolist() == list(range(30))
    assert drawn.equals(draw_sentences(table, "train", 30, seed=0))
    assert not drawn.equals(draw_sentences(table, "train", 30, seed=1))
    assert drawn.equals(draw_sentences(table[::-1], "train", 30))  # the order of the file does not matter
    assert sorted(draw_sentences(table, "test", 99)["sentence"]) == sorted(f"s{row}" for row in range(25, 50))


def test_check_sentences_takes_lists():
    check_sentences(["a", "b"])
    with pytest.raises(ValueError, match="row 2: 3 "):
        check_sentences(["a", 3])


@pytest.mark.parametrize("suffix", ["txt", "csv", "tsv", "jsonl"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda text: text.replace("ü", "u").encode().replace(b"Fu", b"F\xfc"),
            "byte 0xfc",
        ),
        (lambda text: text.replace("ü", "\0").encode(), "a NUL byte"),
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
    assert load_sentences(path)["sentence"].tolist() == ["one", "two"]


def test_files_named_after_splits_are_splits(tmp_path):
    for name in ("train", "test"):
        (tmp_path / f"{name}.txt").write_text("\n".join(f"Sentence {n} of {name}." for n in range(15)))
    table = split_sentences(load_sentences(tmp_path))
    assert dict(zip(table["sentence"], table["split"]))["Sentence 3 of test."] == "test"
    assert table["split"].value_counts().to_dict() == {"train": 15, "test": 15}
    (tmp_path / "more.txt").write_text("One more sentence.")
    with pytest.raises(ValueError, match=r"more\.txt is beside files of splits"):
        load_sentences(tmp_path)
    (tmp_path / "more.txt").rename(tmp_path / "Dev-00000-of-00001.txt")
    assert set(load_sentences(tmp_path)["split"]) == {"train", "validation", "test"}


def test_blank_rows_are_left_out_and_counted_and_a_folder_is_one_corpus(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\n  \n")
    (tmp_path / "b.txt").write_text("two\nthree\u2028and on\n")
    with pytest.warns(UserWarning, match="2 blank rows of 5"):
        assert load_sentences(tmp_path)["sentence"].tolist() == ["one", "two", "three\u2028and on"]
    (tmp_path / "c.csv").touch()
    with pytest.raises(ValueError, match=r"\.csv and \.txt"):
        load_sentences(tmp_path)
    rows = [{"sentence": s} for s in ("one", " ", None, "four")]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match="row 3: "):  # the blank one counts
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

    digits = [re.sub(r"\D", "", sentence) for sentence in sentences]
    squeezed = [" ".join(sentence.split()) for sentence in sentences]
    runs = [{text[k : k + 5] for k in range(len(text) - 4)} for text in squeezed]

    def alike(one, other):
        if digits[one] != digits[other]:
            return 0
        return len(runs[one] & runs[other]) / len(runs[one] | runs[other])

    for similarity in (0.85, 0.9, 1.0):
        kept, expected = [], []
        for row in range(len(sentences)):
            repeats = any(alike(row, other) >= similarity for other in kept)
            (expected if repeats else kept).append(row)
        assert 10 < len(expected) < 200
        assert near_duplicates(sentences, similarity) == expected
    with pytest.raises(ValueError, match=r"similarity is 0\.7"):
        near_duplicates(sentences, 0.7)
    different = ["1.5 goals", "15 goals", "-5 degrees", "5 degrees", "C++", "C#", "C", "⚽", "🏀"]
    different += ["राम ने फल खाया", "राम ने फूल खाया"]
    assert near_duplicates(different) == []


def test_near_duplicates_are_left_out_and_counted_where_asked(tmp_path):
    path, one = tmp_path / "corpus.txt", "The keeper of the home side saved it with the tip of a glove"
    path.write_text("\n".join([one, one.upper() + "!", " ", one, "⚽", "🏀", "ok", "no"]))
    with pytest.warns(UserWarning) as warned:
        assert load_sentences(path, duplicates_from=0.9)["sentence"].tolist() == [one, "⚽", "🏀", "ok", "no"]
    blank, repeats = (str(warning.message) for warning in warned)
    assert "1 blank rows of 8" in blank
    assert "2 sentences of 7" in repeats
    assert repr(one.upper() + "!") in repeats
    with pytest.warns(UserWarning, match="1 blank rows"):
        assert len(load_sentences(path)) == 7  # all are kept unless asked


def test_columns_of_groups_and_another_text_beside_a_sentence(tmp_path):
    path = tmp_path / "corpus.csv"
    path.write_text("sentence,text,sport,year\nold,one,1,1999\nold,two,2,1999\nold,three,2,1999\n")
    expected = {"sentence": ["one", "two", "three"], "sport": ["1", "2", "2"], "year": [1999] * 3}
    assert load_sentences(path, "text").to_dict("list") == expected
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(json.dumps({"sentence": s, "sport": g}) for s, g in zip("abc", ("x", None, None))))
    assert load_sentences(path)["sport"].tolist() == ["x", "b", "c"]


def test_splits_that_cannot_be_used_are_refused():
    with pytest.raises(ValueError, match=r"4 sentences are too few.*: 20 are the least"):
        split_sentences(pd.DataFrame({"sentence": list("abcd")}))
    with pytest.raises(ValueError, match="holds train, validation: train and test"):
        split_sentences(pd.DataFrame({"sentence": list("ab"), "split": ["train", "dev"]}))


def test_a_path_is_not_looked_for_on_the_hub(monkeypatch):
    monkeypatch.setattr("src.tables.ask_hub", lambda question: pytest.fail("asked"))
    for path in ("./mine/corpus", "../mine", "/mine/corpus", "mine/corpus.csv", "a/b/c", "corpus"):
        with pytest.raises(FileNotFoundError, match="there is no file"):
            load_sentences(path)


def test_a_corpus_is_described():
    sentences = ["Гол! Great goal", "Гол! Great goal!", "one", "one"]
    assert describe(sentences, token_counts=[5, 6, 3, 3], max_length=5) == {
        "sentences": "4",
        "repeats": "1",
        "words": "2 in the median, 1 to 3",
        "tokens": "4 in the median, 3 to 6",
        "longer than 5 tokens": "1",
        "first": "Гол! Great goal",
        "last": "one",
        "longest": "Гол! Great goal!",
        "letters": "latin 80.0%, cyrillic 20.0%",
    }


def test_a_hub_dataset_is_a_corpus_and_is_used_again_offline(tmp_path, monkeypatch):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "train.csv").write_text("text,label\nleft hook,1\nright hook,2\n")
    server = StandInHub({"owner/corpus": tmp_path / "corpus"})
    use_hub(monkeypatch, server.server_port, tmp_path / "home")
    assert load_sentences("owner/corpus")["sentence"].tolist() == ["left hook", "right hook"]
    with pytest.raises(FileNotFoundError, match="owner/none is no file here, and no dataset of the hub: 404"):
        load_sentences("owner/none")
    server.close()
    monkeypatch.setattr(hub, "SECONDS", 0.5)
    with pytest.raises(ConnectionError, match=r"owner/corpus.* did not answer"):
        load_sentences("owner/corpus")
    use_hub(monkeypatch, server.server_port, tmp_path / "home", offline=True)
    assert load_sentences("owner/corpus")["sentence"].tolist() == ["left hook", "right hook"]
