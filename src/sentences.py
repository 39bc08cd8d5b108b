"""Sport sentences with known facts, and pairs of them whose relatedness follows from these facts."""

import json
from collections.abc import Iterator
from itertools import combinations, cycle
from pathlib import Path
from random import Random
from typing import NamedTuple

import pandas as pd

from src.grammar import GRAMMAR_FOLDER, NAMED, SPLITS, Event, Names, load_grammar, load_names

SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}  # of the sentences of a sport that is in every split
FOLLOW_UPS = 0.08  # of the sentences tell the last story again or correct it: 15 % of all have such a companion
KINDS = ("balanced", "adversarial", "name trap", "wording trap")
ALL = frozenset((*NAMED, "number"))  # the types of fact that sentences about different events can share
Facts = dict[str, str]  # slot -> value


def generate_sentences(count: int = 20_000, seed: int = 0, folder: Path | str = GRAMMAR_FOLDER) -> pd.DataFrame:
    """`count` unique sentences, balanced over sports, events and wordings; the same for the same seed.

    Columns: `sentence`, `sport`, `event`, `register`, `template` (event and wording), `facts` (JSON), `split`. Splits
    differ in wordings and in names; a sport marked `only_in` is in that split alone. Some stories are told more than
    once, as in a real corpus: in other wordings, with the same facts or with one of them corrected.

    Raises `ValueError` when the grammar does not hold `count` distinct sentences.
    """
    if count < 1:
        raise ValueError(f"count is {count}: ask for at least one sentence")
    all_events, names = load_grammar(folder), load_names(folder)
    sports = sorted({event.sport for event in all_events})
    rows = []
    for position, sport in enumerate(sports):
        events = [event for event in all_events if event.sport == sport]
        quota = count // len(sports) + (position < count % len(sports))
        counts = {split: round(quota * SHARES[split]) for split in SPLITS if split in events[0].wordings}
        counts[next(iter(counts))] += quota - sum(counts.values())  # the first split takes what rounding leaves
        for split in counts:
            draws = _draw_sentences(events, split, names[split], Random(f"{seed}/{sport}/{split}"))
            rows += _distinct(draws, counts[split], f"{sport}, {split}")
    Random(seed).shuffle(rows)
    return pd.DataFrame(rows, columns=["sentence", "sport", "event", "register", "template", "facts", "split"])


def graded_pairs(
    split: str,
    per_grade: int = 400,
    seed: int = 0,
    folder: Path | str = GRAMMAR_FOLDER,
    kinds: tuple[str, ...] = KINDS,
) -> pd.DataFrame:
    """Pairs of sentences of one split whose relatedness follows from their facts alone.

    Columns: `sentence1`, `template1`, `facts1`, the same of the second sentence, `grade` (4 same facts, 3 one fact
    differs, 2 same kind of event, 1 same sport, 0 different sports), `kind` and `split`. There are `per_grade` pairs of
    each grade and kind. `balanced`: what two sentences share says nothing about topic. `adversarial`: shared names,
    numbers and wordings mislead. `name trap` (grades 0 and 2) and `wording trap` (grade 3): one cause at a time.
    data/README.md says what exactly the pairs of each kind share.

    Raises `ValueError` when the grammar's events in this split cannot make some pair.
    """
    events = [event for event in load_grammar(folder) if split in event.wordings]
    sports = sorted({event.sport for event in events})
    if len(sports) < 2:
        raise ValueError(f"{folder} has fewer than two sports in {split}: no pair of different sports can be made")
    names, rng = load_names(folder)[split], Random(f"{seed}/pairs/{split}")
    rows = []
    plans = (plan for plan in _plan_pairs(per_grade) if plan.kind in kinds)
    for sport, plan in zip(cycle(sports), plans):
        first, second, facts1, facts2 = _draw_pair(events, sport, plan, names, rng)
        one, two = rng.sample(range(len(first.wordings[split])), 2)
        if plan.grade < 2:
            two = rng.randrange(len(second.wordings[split]))
        sides = _state(first, split, one, facts1) + _state(second, split, one if plan.one_wording else two, facts2)
        rows.append((*sides, plan.grade, plan.kind, split))
    columns = [f"{column}{side}" for side in (1, 2) for column in ("sentence", "template", "facts")]
    return pd.DataFrame(rows, columns=[*columns, "grade", "kind", "split"])


def draw_facts(event: Event, names: Names, rng: Random) -> Facts:
    """Random facts of an event. No two names share a word, because a wording may say only the last word of a name."""
    facts: Facts = {}
    taken: set[str] = set()
    for name, slot in event.slots.items():
        values = names.get(slot.type, slot.values)
        facts[name] = rng.choice(values)
        while slot.type in NAMED and not taken.isdisjoint(facts[name].split()):
            facts[name] = rng.choice(values)
        taken.update(facts[name].split())
    return facts


def _draw_sentences(events: list[Event], split: str, names: Names, rng: Random) -> Iterator[tuple[str, ...]]:
    most = max(len(event.wordings[split]) for event in events)
    turns = [(event, i) for i in range(most) for event in events if i < len(event.wordings[split])]
    stories: dict[str, tuple[Facts, set[int]]] = {}  # event -> the facts last told, and in which wordings
    for event, wording in cycle(turns):
        facts, told_in = stories.get(event.name, ({}, {wording}))
        if wording not in told_in and rng.random() < FOLLOW_UPS:
            facts = rng.choice([facts, _change_one_fact(event, facts, names, rng) or facts])
        else:
            facts, told_in = draw_facts(event, names, rng), set()
        stories[event.name] = facts, told_in | {wording}
        sentence, template, facts_json = _state(event, split, wording, facts)
        register = event.wordings[split][wording].register
        yield sentence, event.sport, event.name, register, template, facts_json, split


def _distinct(draws: Iterator[tuple[str, ...]], count: int, source: str) -> list[tuple[str, ...]]:
    """The first `count` rows that differ in their first sentence."""
    rows: dict[str, tuple[str, ...]] = {}
    repeats = 0  # since the last new sentence
    for row in draws:
        repeats = repeats + 1 if row[0] in rows else 0
        rows.setdefault(row[0], row)
        if len(rows) >= count or repeats == 1000:
            break
    if len(rows) < count:
        raise ValueError(f"{source}: you asked for {count:,} distinct sentences, there are only about {len(rows):,}")
    return list(rows.values())[:count]


def _state(event: Event, split: str, wording: int, facts: Facts) -> tuple[str, str, str]:
    """A sentence, its template and its facts as JSON."""
    chosen = event.wordings[split][wording]
    return event.render(chosen, facts), f"{event.sport}/{event.name}/{split}/{chosen.register}", json.dumps(facts)


class _Plan(NamedTuple):
    """What one pair is to be."""

    kind: str
    grade: int
    shared: frozenset[str] = frozenset()  # types of fact: share one value of each; for ALL, as many values as possible
    one_wording: bool = False
    twins: bool = False  # of grade 1: the two events are told in the same terms


def _plan_pairs(per_grade: int) -> Iterator[_Plan]:
    several = [frozenset(types) for size in (2, 3) for types in combinations(("person", "place", "number"), size)]
    for turn in range(per_grade):
        shared = several[turn % len(several)]
        yield from (_Plan("balanced", grade, shared, twins=turn // len(several) % 2 == 0) for grade in range(5))
        yield from (_Plan("adversarial", grade, ALL, twins=True) for grade in (0, 1))
        yield from (_Plan("adversarial", grade, one_wording=grade == 2 and turn % 2 == 0) for grade in (2, 3, 4))
        yield from (_Plan("name trap", 0, ALL), _Plan("name trap", 2), _Plan("wording trap", 3, one_wording=True))


def _draw_pair(
    events: list[Event], sport: str, plan: _Plan, names: Names, rng: Random
) -> tuple[Event, Event, Facts, Facts]:
    """Two events and the facts of each. Many draws cannot share what the plan asks for, so we draw until one does."""
    for _ in range(1000):
        first = rng.choice([event for event in events if event.sport == sport])
        second = _second_event(first, events, plan, rng)
        facts1 = draw_facts(first, names, rng)
        facts2 = _second_facts(first, second, facts1, plan, names, rng)
        if facts2 and (second is first) == (plan.grade >= 2):
            return first, second, facts1, facts2
    shared = " and ".join(sorted(plan.shared)) or "nothing"
    raise ValueError(f"{sport}: no pair of grade {plan.grade} can share {shared}")


def _second_event(first: Event, events: list[Event], plan: _Plan, rng: Random) -> Event:
    if plan.grade >= 2:
        return first
    if plan.grade == 1:  # the choice can fall on `first` again: `_draw_pair` then draws the whole pair again
        same_sport = [event for event in events if event.sport == first.sport]
        twins = [event for event in same_sport if event.name == first.twin]
        return rng.choice(twins if twins and plan.twins else same_sport)
    others = [event for event in events if event.sport != first.sport]
    sisters = [event for event in others if first.family and event.family == first.family]
    return rng.choice(sisters if sisters and plan.kind == "adversarial" else others)


def _second_facts(first: Event, second: Event, facts: Facts, plan: _Plan, names: Names, rng: Random) -> Facts | None:
    """Facts of `second` that make the planned pair with `facts` of `first`, or None if this draw did not succeed."""
    if plan.grade == 4:
        return facts
    if plan.grade == 3:
        return _change_one_fact(first, facts, names, rng)
    shared = _shared_facts(first, second, facts, plan.shared, rng)
    if len(shared) < (3 if plan.shared == ALL else len(plan.shared)):
        return None
    drawn = draw_facts(second, names, rng) | shared
    words = _words(first, facts)
    common = {name for name in drawn if second.slots[name].type in ALL and not words.isdisjoint(drawn[name].split())}
    differing = sum(drawn[name] != facts.get(name) for name in drawn)
    return drawn if common == set(shared) and (plan.grade < 2 or differing >= 2) else None


def _shared_facts(first: Event, second: Event, facts: Facts, types: frozenset[str], rng: Random) -> Facts:
    """Facts of `second` whose values are taken from `facts` of `first`: one of each type; for ALL, all that fit."""
    shared: Facts = {}
    for name, slot in rng.sample(list(second.slots.items()), len(second.slots)):
        values = [facts[other] for other in first.slots if first.slots[other].type == slot.type]
        values = [v for v in values if v not in shared.values() and (slot.type in NAMED or v in slot.values)]
        if values and slot.type in types:
            shared[name] = rng.choice(values)
            types = types if types == ALL else types - {slot.type}
    return shared


def _change_one_fact(event: Event, facts: Facts, names: Names, rng: Random) -> Facts | None:
    """The facts with one of them changed, or None if the drawn slot has no other value to take."""
    name, slot = rng.choice(list(event.slots.items()))
    words = _words(event, facts) if slot.type in ALL else set()
    values = [v for v in names.get(slot.type, slot.values) if v != facts[name] and words.isdisjoint(v.split())]
    return facts | {name: rng.choice(values)} if values else None


def _words(event: Event, facts: Facts) -> set[str]:
    """The words of all names and numbers among the facts."""
    return {word for name, slot in event.slots.items() if slot.type in ALL for word in facts[name].split()}
