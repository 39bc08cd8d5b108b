import numpy as np
import pandas as pd
import pytest

from src.pairs import draw_pairs, everyday_pairs, load_pairs, load_triplets


@pytest.mark.filterwarnings("ignore:.*taken for some of 0 to 4")
def test_pairs_as_people_write_them(tmp_path):
    path = tmp_path / "pairs.csv"
    rows = ["a;b;3,0;Training", "c;d;1,0;DEV", "e;f;n/a;test", "g;h;0;Test", "b;a;3;dev"]
    path.write_text("\n".join(["Sentence1;sentence2;score;split", *rows]) + "\n")
    with pytest.warns(UserWarning) as warned:
        pairs = load_pairs(path)
    said = " ".join(str(warning.message) for warning in warned)
    assert "4 pairs are graded, 1 are not" in said
    assert "1 pairs are there twice" in said
    assert pairs[["grade", "split"]].values.tolist() == [[3, "train"], [1, "validation"], [0, "test"]]
    for content, message in {
        "sentence1,sentence2,grade\na,b,\nc,d,\n": "no pair is graded yet: fill the column of grades",
        "sentence1,sentence2,grade,split\na,b,1,train\nc,d,0,trian\n": "row 2: the split is 'trian'",
        "sentence1,sentence2,grade,split\na,b,,train\nc,d,1,train\ne,f,2,held out\n": "row 3: the split is 'held out'",
        "sentence1,sentence2,grade\na,b,0\na ,b,4\n": "row 1: the pair has two grades, here and in row 2",
        "text1,text2,score\na,b,1\n": "no column 'sentence1', only text1, text2, score",
    }.items():
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            load_pairs(path)


def test_pairs_need_their_columns(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("sentence1,sentence2\na,b\nc,d\n")
    with pytest.raises(ValueError, match="no column 'grade'"):
        load_pairs(path)
    path.write_text("sentence1,sentence2,grade\nNA,b,0\nc,d,4\n")
    assert load_pairs(path)["sentence1"].tolist() == ["NA", "c"]
    path.write_text('sentence1,sentence2,grade\na,b,0\nc," ",4\n')
    with pytest.raises(ValueError, match="sentence2, row 2"):
        load_pairs(path)


def test_kind_and_split_of_pairs_are_filled_in(tmp_path):
    path = tmp_path / "pairs.csv"
    pairs = pd.DataFrame(
        {
            "sentence1": [f"s{row // 2}" for row in range(400)],
            "sentence2": [f"other {row % 2}" for row in range(400)],
            "grade": np.arange(400) // 2 % 2,
        }
    )
    pairs.to_csv(path, index=False)
    loaded, again, other = (load_pairs(path, seed) for seed in (0, 0, 1))
    assert set(loaded["kind"]) == {"balanced"}
    assert loaded["split"].tolist() == again["split"].tolist() != other["split"].tolist()
    assert 150 < (loaded["split"] == "train").sum() < 250
    assert 60 < (loaded["split"] == "test").sum() < 140
    assert set(loaded["split"]) == {"train", "validation", "test"}
    assert (loaded.groupby("sentence1")["split"].nunique() == 1).all()  # a first sentence is on one side
    pairs.assign(kind="mined", split="train").to_csv(path, index=False)
    with pytest.warns(UserWarning) as warned:
        loaded = load_pairs(path)
    assert set(loaded["kind"]) == {"balanced"}
    assert set(loaded["split"]) == {"train", "validation", "test"}
    said = " ".join(str(warning.message) for warning in warned)
    assert "400 pairs of other kinds" in said
    assert "splits were drawn anew" in said
    one_first = pairs.assign(sentence1="alone", sentence2=[f"s{row}" for row in range(400)])
    one_first.to_csv(path, index=False)
    assert load_pairs(path)["split"].value_counts().to_dict() == {"train": 200, "validation": 100, "test": 100}
    one_first.assign(split=["train", "dev", "test", "dev"] * 100).to_csv(path, index=False)
    assert load_pairs(path)["split"].value_counts().to_dict() == {"train": 100, "validation": 200, "test": 100}


@pytest.mark.parametrize("column", ["grade", "score", "label"])
@pytest.mark.parametrize(
    ("grades", "relatedness", "shown"),
    [
        ([0, 4, 1, 2, 3], [0, 1, 0.25, 0.5, 0.75], [0, 4, 1, 2, 3]),
        ([0, 1, 2], [0, 0.25, 0.5], [0, 1, 2]),  # a sheet without the highest grades
        (["0", "1"], [0, 1], [0, 4]),
        ([0.0, 1.2, 3.9, 5.0], [0, 0.24, 0.78, 1], [0, 1, 3, 4]),
        ([1, 5, 3], [0, 1, 0.5], [0, 4, 2]),
    ],
)
@pytest.mark.filterwarnings("ignore:.*shown as 0 to 4")
def test_grades_of_any_scale_are_used_in_full(tmp_path, column, grades, relatedness, shown):
    rows = {"sentence1": [f"a{n}" for n in range(len(grades))], "sentence2": "b", column: grades}
    pd.DataFrame(rows).to_csv(tmp_path / "pairs.csv", index=False)
    loaded = load_pairs(tmp_path / "pairs.csv")
    assert loaded["relatedness"].tolist() == pytest.approx(relatedness)
    assert loaded["grade"].tolist() == shown


@pytest.mark.parametrize(
    ("sides", "grades", "message"),
    [
        ("ab cd", [2, 2], "2 graded pairs, all of one grade"),
        ("ab cd ef", ["", "", 3], "1 graded pairs, all of one grade"),
        ("ab cd", [2, "high"], "row 2: the grade is 'high', not a number"),
        ("ab cd", ["inf", 1], "row 1: the grade is .*inf.*, not a number"),
        ("ab cd ba", [2, 1, 3], "row 1: the pair has two grades, here and in row 3"),
        ("ab ab ba", [1, 1, 3], "row 1: the pair has two grades, here and in row 3"),
        ("ab ab ba", ["", 1, 3], "row 2: the pair has two grades, here and in row 3"),
    ],
)
def test_grades_that_cannot_be_used(tmp_path, sides, grades, message):
    rows = {"sentence1": [s[0] for s in sides.split()], "sentence2": [s[1] for s in sides.split()], "grade": grades}
    pd.DataFrame(rows).to_csv(tmp_path / "pairs.csv", index=False)
    with pytest.raises(ValueError, match=message):
        load_pairs(tmp_path / "pairs.csv")


def test_a_sheet_with_gaps_is_used_and_counted(tmp_path):
    rows = {"sentence1": list("abcd"), "sentence2": "x", "grade": ["1", "", " ", "3"]}
    pd.DataFrame(rows).to_csv(tmp_path / "sheet.csv", index=False)
    with pytest.warns(UserWarning, match="sheet.csv: 2 pairs are graded, 2 are not"):
        loaded = load_pairs(tmp_path / "sheet.csv")
    assert loaded["sentence1"].tolist() == ["a", "d"]
    assert loaded["grade"].tolist() == [1, 3]


def test_everyday_pairs_are_of_many_topics():
    found = everyday_pairs()
    assert found["grade"].value_counts().to_dict() == dict.fromkeys(range(5), 80)
    assert found["template1"].str.split("/").str[0].nunique() >= 15


def test_pairs_are_drawn_to_learn_from_and_to_judge_by():
    rows = [(split, kind, grade) for split in ("train", "validation", "test") for kind in "ab" for grade in (0, 4)] * 20
    table = pd.DataFrame(rows, columns=["split", "kind", "grade"]).assign(number=range(240))
    table["kind"] = table["kind"].replace({"a": "balanced", "b": "name trap"})
    train, validation, test = draw_pairs(table, 30, 7, seed=1)
    assert len(train) == 30 and set(train["split"]) == {"train"}
    assert validation[["kind", "grade"]].value_counts().to_dict() == {("balanced", 0): 7, ("balanced", 4): 7}
    assert set(test.groupby(["kind", "grade"]).size()) == {7} and set(test["split"]) == {"test"}
    assert train.equals(draw_pairs(table, 30, 0, seed=1)[0])
    assert not train.equals(draw_pairs(table, 30, 7, seed=2)[0])


def test_triplets_of_a_file(tmp_path):
    path = tmp_path / "triplets.csv"
    path.write_text("Anchor,positive,negative\na,b,c\nd,e,f\n")
    assert load_triplets(path) == [("a", "b", "c"), ("d", "e", "f")]
    path.write_text("sentence1,sentence2\na,b\nd,e\n")
    assert load_triplets(path) == [("a", "b"), ("d", "e")]
    for header in ("sentence1,sentence2,Label", "anchor,positive,negative_1"):  # grades, or negatives, would be ignored
        path.write_text(f"{header}\na,b,0\nd,e,1\n")
        with pytest.raises(ValueError, match=f"no use for the column '{header.split(',')[-1].lower()}'"):
            load_triplets(path)
    path.write_text("anchor,other\na,b\nd,e\n")
    with pytest.raises(ValueError, match="no column 'positive', only anchor, other"):
        load_triplets(path)


def test_grades_are_found_by_their_best_name(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("Sentence1,sentence2,score,Grade,Split\na,b,0.91,0,train\nc ,d,0.2,4,dev\ne,f,0.5,2,TEST\n")
    pairs = load_pairs(path)
    assert pairs["grade"].tolist() == [0, 4, 2]
    assert pairs["split"].tolist() == ["train", "validation", "test"]


def test_a_lone_grade_far_from_all_others_is_refused(tmp_path):
    path = tmp_path / "pairs.csv"
    rows = [f"a{n},b{n},{n % 5}" for n in range(150)]
    path.write_text("\n".join(["sentence1,sentence2,grade", *rows[:70], "c,d,44", *rows[70:]]))
    with pytest.raises(ValueError, match="row 71: the grade is 44, all others are from 0 to 4"):
        load_pairs(path)


def test_few_positives_among_many_pairs_are_grades(tmp_path):
    table = pd.DataFrame({"sentence1": [f"a{i}" for i in range(1_000)], "sentence2": "b", "grade": [1] * 5 + [0] * 995})
    table.to_csv(tmp_path / "rare.csv", index=False)
    with pytest.warns(UserWarning, match="shown as 0 to 4"):
        assert load_pairs(tmp_path / "rare.csv")["relatedness"].sum() == 5
