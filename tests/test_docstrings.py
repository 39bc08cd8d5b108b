import pandas as pd

from experiments import docstrings


def test_grades_follow_from_where_sentences_stand(monkeypatch):
    monkeypatch.setattr(docstrings, "PAIRS_PER_GRADE", 20)
    rows = [
        (f"{library}.{module}.f{function} says {k}", f"{library}.{module}", f"{library}.{module}.f{function}")
        for library in ("scipy", "numpy") for module in "ab" for function in range(3) for k in range(3)
    ]  # fmt: skip
    pairs = docstrings.draw_pairs(pd.DataFrame(rows, columns=["sentence", "sport", "event"]))
    assert pairs["grade"].value_counts().to_dict() == {0: 20, 1: 20, 2: 20}
    for one, two, grade, function in pairs.itertuples(index=False):
        first, second = (sentence.split()[0].split(".") for sentence in (one, two))
        assert one != two
        assert function == ".".join(first)
        if grade == 0:
            assert first[0] != second[0]
        else:
            assert first[:2] == second[:2]
            assert (first[2] == second[2]) == (grade == 2)


def test_functions_are_held_out_whole(monkeypatch):
    monkeypatch.setattr(docstrings, "MODULES", ["statistics", "zipfile"])
    monkeypatch.setattr(docstrings, "SENTENCES", 60)
    frame = docstrings.docstring_sentences()
    assert frame["sentence"].is_unique
    assert set(frame["split"]) == {"train", "test"}
    assert (frame.groupby("event")["split"].nunique() == 1).all()
