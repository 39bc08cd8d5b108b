"""Sport sentences with known facts: one grammar file a sport in, sentences and graded pairs out.

The format of a grammar file is described in data/README.md, with data/grammar/football.yaml as the model.
"""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, cycle
from pathlib import Path

import yaml
from datasets import Dataset

SPLITS = ("train", "validation", "test")
FAMILIES = ("combat", "invasion", "net", "race", "striking", "target")  # of sports that share much of their vocabulary
SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}  # of a sport that is in every split
NAMED = ("person", "club", "place")  # slot types whose values come from names.yaml, a pool for each split
ALL = frozenset((*NAMED, "number"))  # what two sentences about different things can have in common
GRAMMAR_FOLDER = Path(__file__).parent.parent / "data" / "grammar"

_FIELD = re.compile(r"\{(\w+)(?::(\w+))?\}")
_RANGE = re.compile(r"(\d+(?:\.\d+)?)\.\.(\d+(?:\.\d+)?)")
_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
    "twelve": "twelfth",
}  # fmt: skip


class GrammarError(ValueError):
    """A grammar file that cannot be used; the message names file, line and reason."""


@dataclass(frozen=True)
class Slot:
    """One kind of fact: a name from the split's pool, a number in a range, or one of several choices."""

    type: str  # "person", "club", "place", "number" or "choice"
    values: tuple[str, ...] = ()  # of a number or choice
    renderings: dict[str, tuple[str, ...]] | None = None  # of a choice: value -> ways to say it

    @property
    def forms(self) -> tuple[str, ...]:
        """The forms a wording may ask for, as in `{winner:last}`; the empty form is always there."""
        if self.type == "choice":
            return ("", *(str(i + 1) for i in range(1, len(self.renderings[self.values[0]]))))
        whole = self.type == "number" and all(value.isdigit() and int(value) < 100 for value in self.values)
        return {"person": ("", "last"), "club": ("", "short")}.get(
            self.type, ("", "words", "ordinal", "ordinal_words") if whole else ("",)
        )

    def render(self, value: str, form: str) -> str:
        if self.type == "choice":
            return self.renderings[value][int(form or 1) - 1]
        if form in ("last", "short"):
            return value.split()[-1]
        return {"": str, "words": _words, "ordinal": _ordinal, "ordinal_words": _ordinal_words}[form](value)


@dataclass(frozen=True)
class Event:
    """A kind of happening in a sport: the facts it has, and its wordings by split, each stating all of them."""

    sport: str
    name: str
    slots: dict[str, Slot]
    wordings: dict[str, tuple[str, ...]]
    family: str | None = None  # one of FAMILIES, where the sport has sisters

    def draw_facts(self, names: dict[str, tuple[str, ...]], rng: random.Random) -> dict[str, str]:
        """Random facts; `names` maps person, club and place to the pool of a split. No two names share a word, since a
        wording may tell no more than the last one."""
        facts: dict[str, str] = {}
        taken: set[str] = set()
        for slot_name, slot in self.slots.items():
            value = rng.choice(names[slot.type] if slot.type in NAMED else slot.values)
            while slot.type in NAMED and not taken.isdisjoint(value.split()):
                value = rng.choice(names[slot.type])
            taken.update(value.split())
            facts[slot_name] = value
        return facts

    def render(self, wording: str, facts: dict[str, str]) -> str:
        sentence = _FIELD.sub(lambda field: self.slots[field[1]].render(facts[field[1]], field[2] or ""), wording)
        sentence = sentence.replace("s's ", "s' ")
        return sentence[0].upper() + sentence[1:]


def _words(number: str) -> str:
    tens, ones = divmod(int(number), 10)
    if tens < 2:
        return _ONES[int(number)]
    return _TENS[tens] + (f"-{_ONES[ones]}" if ones else "")


def _ordinal(number: str) -> str:
    if number[-2:] in ("11", "12", "13"):
        return number + "th"
    return number + {"1": "st", "2": "nd", "3": "rd"}.get(number[-1], "th")


def _ordinal_words(number: str) -> str:
    *head, last = _words(number).split("-")
    last = _ORDINALS.get(last) or (last[:-1] + "ieth" if last.endswith("y") else last + "th")
    return "-".join([*head, last])


# ---- sentences and pairs ----


def generate_sentences(count: int = 20_000, seed: int = 0, folder: Path | str = GRAMMAR_FOLDER) -> Dataset:
    """`count` unique sentences, balanced over sports, events and wordings; the same for the same seed.

    Columns: `sentence`, `sport`, `event`, `template` (event and wording), `facts` (JSON), `split`. Splits differ in
    wordings and in names; a sport marked `only_in` is in that split alone.

    Raises `ValueError` when the grammar does not hold `count` distinct sentences.
    """
    if count < 1:
        raise ValueError(f"count is {count}: at least one sentence must be asked for")
    events, names = load_grammar(folder), load_names(folder)
    sports = sorted({event.sport for event in events})
    rows = []
    for position, sport in enumerate(sports):
        quota = count // len(sports) + (position < count % len(sports))
        ours = [event for event in events if event.sport == sport]
        splits = [split for split in SPLITS if split in ours[0].wordings]
        shares = {split: round(quota * SHARES[split]) for split in splits[1:]}
        shares[splits[0]] = quota - sum(shares.values())
        for split in splits:
            rows += _rows(ours, split, shares[split], names[split], random.Random(f"{seed}/{sport}/{split}"))
    random.Random(seed).shuffle(rows)
    return Dataset.from_list(rows)


def _rows(events: list[Event], split: str, count: int, names: dict, rng: random.Random) -> list[dict[str, str]]:
    turns = max(len(event.wordings[split]) for event in events)
    wordings = [(event, i) for i in range(turns) for event in events if i < len(event.wordings[split])]
    rows: dict[str, dict[str, str]] = {}
    repeats = 0
    for event, i in cycle(wordings):
        if len(rows) == count:
            return list(rows.values())
        row = _row(event, split, i, event.draw_facts(names, rng))
        repeats = repeats + 1 if row["sentence"] in rows else 0
        if repeats == 1000:
            raise ValueError(
                f"{event.sport} has only about {len(rows):,} distinct sentences for {split}, {count:,} were asked for: "
                "lower the count, or add wordings or names"
            )
        rows.setdefault(row["sentence"], row)


def _row(event: Event, split: str, wording: int, facts: dict[str, str]) -> dict[str, str]:
    return {
        "sentence": event.render(event.wordings[split][wording], facts),
        "sport": event.sport,
        "event": event.name,
        "template": f"{event.sport}/{event.name}/{split}/{wording}",
        "facts": json.dumps(facts),
        "split": split,
    }


def graded_pairs(split: str, per_grade: int = 400, seed: int = 0, folder: Path | str = GRAMMAR_FOLDER) -> Dataset:
    """Pairs of sentences of one split whose relatedness follows from their facts alone.

    Columns: `sentence1`, `sentence2`, `grade` (4 same facts, 3 one fact differs, 2 same event, 1 same sport, 0
    different sports), `kind`, `split`, and the `template` and `facts` that each sentence was made of. Kinds:

    - `balanced`: `per_grade` pairs of each grade, never in one wording. Grades 0, 1 and 2 share two or all of a person,
      a place and a number, each combination equally often, so that these say nothing about topic.
    - `adversarial`: as many, where shared words mislead. Grades 0 and 1 share all the names and numbers that their
      events allow, grade 0 with a sport of the same family where the split has one; half of grade 2 shares none, the
      other half is in one wording with none of them in common.
    - `name trap`: grade 0 sharing names as above, grade 2 sharing none.
    - `wording trap`: grade 3 in one and the same wording (to be compared with grade 4).

    Raises `ValueError` when the grammar's events in this split cannot make some pair.
    """
    events = [event for event in load_grammar(folder) if split in event.wordings]
    names, rng = load_names(folder)[split], random.Random(f"{seed}/pairs/{split}")
    by_sport = {sport: [e for e in events if e.sport == sport] for sport in sorted({e.sport for e in events})}
    if len(by_sport) < 2:
        raise ValueError(f"{folder} has fewer than two sports in {split}: no pair of different sports can be made")
    rows = []
    for kind, grade, shared, one_wording in _plan(per_grade):
        sport = list(by_sport)[len(rows) % len(by_sport)]
        for _ in range(1000):  # until two events are drawn that can share what they are to share
            first = rng.choice(by_sport[sport])
            second = first
            if grade < 2:
                others = by_sport[sport] if grade == 1 else [event for event in events if event.sport != sport]
                if kind == "adversarial" and grade == 0 and first.family:
                    others = [event for event in others if event.family == first.family] or others
                second = rng.choice(others)
            facts = first.draw_facts(names, rng)
            related = _related_facts(first, second, facts, grade, shared, names, rng)
            if related and (second is first) == (grade >= 2):
                break
        else:
            raise ValueError(
                f"{sport}, {split}: no pair of grade {grade} can share {' and '.join(sorted(shared)) or 'nothing'}"
            )
        one, two = rng.sample(range(len(first.wordings[split])), 2)
        two = rng.randrange(len(second.wordings[split])) if grade < 2 else one if one_wording else two
        sides = enumerate((_row(first, split, one, facts), _row(second, split, two, related)), start=1)
        stated = {f"{key}{i}": side[key] for i, side in sides for key in ("sentence", "template", "facts")}
        rows.append(stated | {"grade": grade, "kind": kind, "split": split})
    return Dataset.from_list(rows)


def triplets(split: str, count: int, seed: int = 0, folder: Path | str = GRAMMAR_FOLDER) -> list[tuple[str, str, str]]:
    """(anchor, the same facts in another wording, the anchor's wording with one fact changed): what supervised SimCSE
    learns from, a positive and a hard negative. Anchors are distinct, and take turns over the events of the split."""
    events = [event for event in load_grammar(folder) if split in event.wordings]
    names, rng = load_names(folder)[split], random.Random(f"{seed}/triplets/{split}")
    rows: dict[str, tuple[str, str, str]] = {}
    for event in cycle(events):
        if len(rows) == count:
            return list(rows.values())
        facts = event.draw_facts(names, rng)
        changed = _related_facts(event, event, facts, 3, frozenset(), names, rng)
        one, two = rng.sample(event.wordings[split], 2)
        if changed:
            sentences = event.render(one, facts), event.render(two, facts), event.render(one, changed)
            rows.setdefault(sentences[0], sentences)


def _plan(per_grade: int) -> Iterator[tuple[str, int, frozenset[str], bool]]:
    """Kind and grade of each pair, what it is to share (below grade 3), and whether both are in one wording."""
    nothing = frozenset()
    several = [frozenset(some) for size in (2, 3) for some in combinations(("person", "place", "number"), size)]
    for turn in range(per_grade):
        yield from (("balanced", grade, several[turn % len(several)], False) for grade in range(5))
        yield from (("adversarial", grade, ALL, False) for grade in (0, 1))
        yield ("adversarial", 2, nothing, turn % 2 == 0)
        yield from (("adversarial", grade, nothing, False) for grade in (3, 4))
        yield from (("name trap", 0, ALL, False), ("name trap", 2, nothing, False), ("wording trap", 3, nothing, True))


def _related_facts(
    first: Event,
    second: Event,
    facts: dict[str, str],
    grade: int,
    shared: frozenset[str],
    names: dict,
    rng: random.Random,
) -> dict[str, str] | None:
    """Facts of `second` that make a pair of the grade, or None if this draw did not succeed. Below grade 3, the names
    and numbers that both state are one of each type in `shared` and no other."""
    if grade == 4:
        return facts
    said = {word for name, slot in first.slots.items() if slot.type != "choice" for word in facts[name].split()}
    if grade == 3:
        name, slot = rng.choice(list(first.slots.items()))
        values = names[slot.type] if slot.type in NAMED else slot.values
        values = [v for v in values if v != facts[name] and (slot.type == "choice" or said.isdisjoint(v.split()))]
        return facts | {name: rng.choice(values)} if values else None
    taken: dict[str, str] = {}
    for target, slot in rng.sample(list(second.slots.items()), len(second.slots)):
        values = [facts[n] for n, s in first.slots.items() if s.type == slot.type and facts[n] not in taken.values()]
        values = [value for value in values if slot.type in NAMED or value in slot.values]
        if values and slot.type != "choice" and (shared is ALL or slot.type in shared):
            taken[target] = rng.choice(values)
            shared = shared if shared is ALL else shared - {slot.type}
    if len(taken) < 3 if shared is ALL else shared:
        return None
    fresh = second.draw_facts(names, rng) | taken
    stated = {name: slot for name, slot in second.slots.items() if slot.type != "choice"}
    common = [name for name in stated if not said.isdisjoint(fresh[name].split())]
    differing = sum(fresh[name] != facts[name] for name in fresh) if second is first else 2
    return fresh if sorted(common) == sorted(taken) and differing >= 2 else None


# ---- reading the grammar: YAML nodes rather than values, because only nodes know their line ----


def load_grammar(folder: Path | str = GRAMMAR_FOLDER) -> list[Event]:
    """Read and check every `*.yaml` grammar file of a folder, in the order of their names.

    Raises `GrammarError` naming file, line and reason for anything a sentence could not be made of.
    """
    files = sorted(Path(folder).glob("*.yaml"))
    if not files:
        raise GrammarError(f"{folder} holds no grammar file (*.yaml)")
    seen: dict[str, str] = {}  # wording without its slots -> where it stands
    return [event for file in files for event in _read_sport(file, seen)]


def load_names(folder: Path | str = GRAMMAR_FOLDER) -> dict[str, dict[str, tuple[str, ...]]]:
    """The invented names beside the grammar folder: split -> person, club or place -> pool; pools are disjoint."""
    file = Path(folder).parent / "names.yaml"
    pools = {}
    for split, node in _mapping(_compose(file), file):
        lists = {key: _strings(value, file) for key, value in _mapping(node, file)}
        pools[split] = {
            "person": tuple(f"{given} {surname}" for given in lists["given"] for surname in lists["surname"]),
            "club": lists["club"],
            "place": lists["place"],
        }
        if small := [kind for kind, pool in pools[split].items() if len(pool) < 20]:
            raise _error(file, node, f"fewer than 20 {small[0]} names for {split}")
    words = [{word for pool in pools[split].values() for name in pool for word in name.split()} for split in SPLITS]
    if shared := (words[0] & words[1]) | (words[0] & words[2]) | (words[1] & words[2]):
        raise GrammarError(f"{file}: names in more than one split: {', '.join(sorted(shared))}")
    return pools


def _read_sport(file: Path, seen: dict[str, str]) -> list[Event]:
    top = dict(
        _mapping(_compose(file), file, allowed=("sport", "family", "only_in", "events"), required=("sport", "events"))
    )
    family = _scalar(top["family"], file) if "family" in top else None
    if family not in (None, *FAMILIES):
        raise _error(file, top["family"], f"family must be one of {', '.join(FAMILIES)}, not {family!r}")
    only_in = _scalar(top["only_in"], file) if "only_in" in top else None
    if only_in not in (None, "validation", "test"):
        raise _error(file, top["only_in"], f"only_in must be validation or test, not {only_in!r}")
    splits = (only_in,) if only_in else SPLITS
    sport = _scalar(top["sport"], file)
    return [_read_event(file, sport, family, name, node, splits, seen) for name, node in _mapping(top["events"], file)]


def _read_event(
    file: Path,
    sport: str,
    family: str | None,
    name: str,
    node: yaml.Node,
    splits: tuple[str, ...],
    seen: dict[str, str],
) -> Event:
    parts = dict(_mapping(node, file, allowed=("slots", "wordings"), required=("slots", "wordings")))
    slots = {key: _read_slot(file, value) for key, value in _mapping(parts["slots"], file)}
    types = [slot.type for slot in slots.values()]
    if "person" not in types or "place" not in types:
        raise _error(file, parts["slots"], f"event {name!r} needs at least one person and one place")
    wordings = {}
    for split, listed in _mapping(parts["wordings"], file, allowed=splits, required=splits):
        wordings[split] = _strings(listed, file)
        for wording, item in zip(wordings[split], listed.value):
            _check_wording(file, item, wording, slots)
            skeleton = _FIELD.sub("{}", wording).lower()
            if skeleton in seen:
                raise _error(file, item, f"the same wording as in {seen[skeleton]}: {wording!r}")
            seen[skeleton] = f"{file.name}, line {item.start_mark.line + 1}"
        if len(wordings[split]) < 2:
            raise _error(file, listed, f"event {name!r} needs at least two wordings for {split}")
    return Event(sport, name, slots, wordings, family)


def _read_slot(file: Path, node: yaml.Node) -> Slot:
    if isinstance(node, yaml.ScalarNode):
        if node.value in NAMED:
            return Slot(node.value)
        if not (bounds := _RANGE.fullmatch(node.value)):
            raise _error(file, node, f"a slot is person, club, place, a range such as 2..9, or a list: {node.value!r}")
        decimals = len(bounds[1].partition(".")[2])
        low, high = (round(float(bound) * 10**decimals) for bound in bounds.groups())
        if low >= high:
            raise _error(file, node, f"the range {node.value} is empty")
        return Slot("number", tuple(f"{step / 10**decimals:.{decimals}f}" for step in range(low, high + 1)))
    if isinstance(node, yaml.SequenceNode):
        renderings = {value: (value,) for value in _strings(node, file)}
    else:
        renderings = {value: _strings(ways, file) for value, ways in _mapping(node, file)}
    if len(renderings) < 2 or len({len(ways) for ways in renderings.values()}) != 1:
        raise _error(file, node, "a choice needs two values or more, all with the same number of renderings")
    if any(len(set(said)) < len(said) for said in zip(*renderings.values())):
        raise _error(file, node, "two values of a choice are said in the same words")
    return Slot("choice", tuple(renderings), renderings)


def _check_wording(file: Path, node: yaml.Node, wording: str, slots: dict[str, Slot]) -> None:
    used = {match[1] for match in _FIELD.finditer(wording)}
    if unknown := used - set(slots):
        raise _error(file, node, f"unknown slot {{{unknown.pop()}}} in {wording!r}")
    if missing := [slot for slot in slots if slot not in used]:
        raise _error(file, node, f"the fact {{{missing[0]}}} is not stated in {wording!r}")
    for match in _FIELD.finditer(wording):
        if (form := match[2] or "") not in slots[match[1]].forms:
            raise _error(file, node, f"{{{match[1]}}} has no form {form!r} (only {slots[match[1]].forms[1:]})")
    if re.search(r"\b[Aa]n? \{", wording):
        raise _error(file, node, f"'a' or 'an' before a slot goes wrong for some values: {wording!r}")
    if "{" in _FIELD.sub("", wording) or "}" in _FIELD.sub("", wording):
        raise _error(file, node, f"a brace that belongs to no slot in {wording!r}")


def _error(file: Path, node: yaml.Node, reason: str) -> GrammarError:
    return GrammarError(f"{file}, line {node.start_mark.line + 1}: {reason}")


def _compose(file: Path) -> yaml.Node:
    try:
        node = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise GrammarError(f"{file}, line {error.problem_mark.line + 1}: {error.problem}") from None
    if node is None:
        raise GrammarError(f"{file}, line 1: the file is empty")
    return node


def _mapping(
    node: yaml.Node, file: Path, allowed: tuple[str, ...] = (), required: tuple[str, ...] = ()
) -> Iterator[tuple[str, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        raise _error(file, node, "expected `key: value` lines here")
    keys = [_scalar(key, file) for key, _ in node.value]
    for key, (key_node, _) in zip(keys, node.value):
        if keys.count(key) > 1:
            raise _error(file, key_node, f"{key!r} is given twice")
        if allowed and key not in allowed:
            raise _error(file, key_node, f"unknown key {key!r}, expected one of {', '.join(allowed)}")
    if missing := [key for key in required if key not in keys]:
        raise _error(file, node, f"`{missing[0]}:` is missing")
    return ((key, value) for key, (_, value) in zip(keys, node.value))


def _strings(node: yaml.Node, file: Path) -> tuple[str, ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise _error(file, node, "expected a list here")
    strings = tuple(_scalar(item, file) for item in node.value)
    if len(set(strings)) < len(strings):
        raise _error(file, node, "the same entry twice in one list")
    return strings


def _scalar(node: yaml.Node, file: Path) -> str:
    if not isinstance(node, yaml.ScalarNode) or not node.value.strip():
        raise _error(file, node, "expected plain text here")
    return node.value
