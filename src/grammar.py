"""Grammar files (data/README.md): the events of a sport, the facts of each, and the wordings that state these facts."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import yaml

from src.records import ROOT

SPLITS = ("train", "validation", "test")
FAMILIES = ("combat", "invasion", "net", "race", "striking", "target")  # of sports that share much of their vocabulary
REGISTERS = ("report", "headline", "live", "fan")  # a newspaper's sentence, its headline, a live ticker, a fan's post
NAMED = ("person", "club", "place")  # slot types whose values come from names.yaml
GRAMMAR_FOLDER = ROOT / "data" / "grammar"
Names = dict[str, tuple[str, ...]]  # the names of one split, for each type in NAMED

_FIELD = re.compile(r"\{(\w+)(?::(\w+))?\}")  # {slot} or {slot:form}
_RANGE = re.compile(r"(\d+(?:\.\d+)?)\.\.(\d+(?:\.\d+)?)")
_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"
).split()
_WORDS = _NUMBERS[:20] + [f"{ten}-{one}".removesuffix("-zero") for ten in _NUMBERS[20:] for one in _NUMBERS[:10]]
_ORDINALS = dict(one="first", two="second", three="third", five="fifth", eight="eighth", nine="ninth", twelve="twelfth")


def _ordinal_words(number: str) -> str:
    *tens, last = _WORDS[int(number)].split("-")
    return "-".join([*tens, _ORDINALS.get(last, f"{last}th")]).replace("yth", "ieth")


_FORMS = {  # slot type -> form -> how it states a value; a choice has forms of its own
    "person": {"": str, "last": lambda name: name.split()[-1]},
    "club": {"": str, "short": lambda name: name.split()[-1]},
    "place": {"": str},
    "number": {
        "": str,
        "words": lambda number: _WORDS[int(number)],
        "ordinal": lambda number: number + _ordinal_words(number)[-2:],  # 3 and third: 3rd
        "ordinal_words": _ordinal_words,
    },
}


@dataclass(frozen=True)
class Slot:
    """One kind of fact: a name from the split's names, a number in a range, or one of several choices."""

    type: str  # "person", "club", "place", "number" or "choice"
    forms: dict[str, Callable[[str], str]]  # what a wording may ask for, as in {winner:last} -> how it states a value
    values: tuple[str, ...] = ()  # of a number or choice


class Wording(NamedTuple):
    """One way to state the facts of an event."""

    text: str  # with slots: "{keeper} saves a penalty"
    register: str  # one of REGISTERS, or a number in a list that names no registers


@dataclass(frozen=True)
class Event:
    """One kind of event in a sport: its slots, and its wordings for each split. Every wording states every fact."""

    sport: str
    name: str
    slots: dict[str, Slot]
    wordings: dict[str, tuple[Wording, ...]]
    family: str | None = None  # one of FAMILIES, if the sport belongs to one
    twin: str | None = None  # the event of the same sport told in the same terms: penalty saved, penalty scored

    def render(self, wording: Wording, facts: dict[str, str]) -> str:
        """The sentence that states `facts` (slot -> value) in this wording."""
        sentence = _FIELD.sub(lambda match: self.slots[match[1]].forms[match[2] or ""](facts[match[1]]), wording.text)
        sentence = sentence.replace("s's ", "s' ")
        return sentence[0].upper() + sentence[1:]


def load_grammar(folder: Path | str = GRAMMAR_FOLDER) -> list[Event]:
    """Read and check all `*.yaml` files of a folder, in the order of their names. Raises `ValueError` naming
    file, line and reason for one that cannot be used."""
    files = sorted(Path(folder).glob("*.yaml"))
    if not files:
        raise ValueError(f"{folder} holds no grammar file (*.yaml)")
    first_uses: dict[str, str] = {}  # a wording without its slots -> file and line of its first use
    return [event for file in files for event in _read_sport(_compose(file), first_uses)]


def load_names(folder: Path | str = GRAMMAR_FOLDER) -> dict[str, Names]:
    """The invented names of each split, from `names.yaml` beside the grammar folder. No two splits share a word."""
    file = Path(folder).parent / "names.yaml"
    names = {}
    for split, node in _mapping(_compose(file), required=SPLITS).items():
        lists = {key: _texts(value) for key, value in _mapping(node, ("given", "surname", "club", "place")).items()}
        persons = tuple(f"{given} {surname}" for given in lists["given"] for surname in lists["surname"])
        names[split] = {"person": persons, "club": lists["club"], "place": lists["place"]}
        for kind in NAMED:
            _require(len(names[split][kind]) >= 20, node, f"fewer than 20 {kind} names for {split}")
    words = [{word for kind in NAMED for name in names[split][kind] for word in name.split()} for split in SPLITS]
    if shared := (words[0] & words[1]) | (words[0] & words[2]) | (words[1] & words[2]):
        raise ValueError(f"{file}: names in more than one split: {', '.join(sorted(shared))}")
    return names


def _read_sport(node: yaml.Node, first_uses: dict[str, str]) -> list[Event]:
    top = _mapping(node, required=("sport", "events"), optional=("family", "only_in"))
    family, only_in = (_text(top[key]) if key in top else None for key in ("family", "only_in"))
    for key, value, allowed in (("family", family, FAMILIES), ("only_in", only_in, SPLITS[1:])):
        _require(value in (None, *allowed), top.get(key, node), f"{key} must be one of {allowed}, not {value!r}")
    events, twins = [], {}
    nodes = _mapping(top["events"])
    for name, event in nodes.items():
        keys = _mapping(event, required=("slots", "wordings"), optional=("twin",))
        if "twin" in keys:
            twin = _text(keys["twin"])
            _require(twin in nodes and twin != name, keys["twin"], f"twin: {twin!r} is no other event of this file")
            _require(not {name, twin} & set(twins), keys["twin"], f"{name!r} or {twin!r} has a twin already")
            twins |= {name: twin, twin: name}
        slots = {slot_name: _read_slot(slot) for slot_name, slot in _mapping(keys["slots"]).items()}
        types = {slot.type for slot in slots.values()}
        _require({"person", "place"} <= types, keys["slots"], f"event {name!r} needs at least one person and one place")
        lists = _mapping(keys["wordings"], required=(only_in,) if only_in else SPLITS)
        wordings = {split: _read_wordings(texts, slots, first_uses) for split, texts in lists.items()}
        events.append(Event(_text(top["sport"]), name, slots, wordings, family))
    return [replace(event, twin=twins.get(event.name)) for event in events]


def _read_slot(node: yaml.Node) -> Slot:
    if isinstance(node, yaml.ScalarNode):
        return Slot(node.value, _FORMS[node.value]) if node.value in NAMED else _read_range(node)
    if isinstance(node, yaml.SequenceNode):
        choices = {value: (value,) for value in _texts(node)}
    else:
        choices = {value: _texts(ways) for value, ways in _mapping(node).items()}
    counts = {len(ways) for ways in choices.values()}
    _require(len(choices) >= 2 and len(counts) == 1, node, "a choice needs two values, said in equally many ways")
    forms = {}
    for number, texts in enumerate(zip(*choices.values()), start=1):
        _require(len(set(texts)) == len(texts), node, "two values of a choice are said in the same words")
        forms["" if number == 1 else str(number)] = dict(zip(choices, texts)).__getitem__
    return Slot("choice", forms, tuple(choices))


def _read_range(node: yaml.Node) -> Slot:
    bounds = _RANGE.fullmatch(node.value)
    _require(bounds, node, f"a slot is person, club, place, a range such as 2..9, or a list, not {node.value!r}")
    decimals = len(bounds[1].partition(".")[2])
    low, high = (round(float(bound) * 10**decimals) for bound in bounds.groups())
    _require(low < high, node, f"the range {node.value} is empty")
    values = tuple(f"{step / 10**decimals:.{decimals}f}" for step in range(low, high + 1))
    return Slot("number", _FORMS["number"] if decimals == 0 and high < 100 else {"": str}, values)


def _read_wordings(node: yaml.Node, slots: dict[str, Slot], first_uses: dict[str, str]) -> tuple[Wording, ...]:
    """`register: wording` lines, or a list of wordings that names no registers."""
    if isinstance(node, yaml.MappingNode):
        nodes = _mapping(node, optional=REGISTERS)
    else:
        nodes = {str(number): item for number, item in enumerate(_items(node))}
    _require(len(nodes) >= 2, node, "an event needs at least two wordings for each split")
    for item in nodes.values():
        _check_wording(_text(item), item, slots, first_uses)
    return tuple(Wording(_text(item), register) for register, item in nodes.items())


def _check_wording(wording: str, node: yaml.Node, slots: dict[str, Slot], first_uses: dict[str, str]) -> None:
    fields = [(match[1], match[2] or "") for match in _FIELD.finditer(wording)]
    for slot, form in fields:
        _require(slot in slots, node, f"unknown slot {{{slot}}} in {wording!r}")
        _require(form in slots[slot].forms, node, f"{{{slot}}} has no form {form!r} in {wording!r}")
    for slot in slots:
        _require(slot in dict(fields), node, f"the fact {{{slot}}} is not stated in {wording!r}")
    _require(not re.search(r"\b[Aa]n? \{", wording), node, f"'a' or 'an' before a slot in {wording!r}")
    _require(not re.search("[{}]", _FIELD.sub("", wording)), node, f"a brace outside a slot in {wording!r}")
    no_slots = _FIELD.sub("{}", wording).lower()
    _require(no_slots not in first_uses, node, f"the same wording as {first_uses.get(no_slots)}: {wording!r}")
    first_uses[no_slots] = str(node.start_mark).strip()


def _require(condition: object, node: yaml.Node, reason: str) -> None:
    if not condition:
        raise ValueError(f"{node.start_mark.name}, line {node.start_mark.line + 1}: {reason}")


def _compose(file: Path) -> yaml.Node:
    try:
        with file.open(encoding="utf-8") as stream:  # a stream, so that every node knows the name of the file
            node = yaml.compose(stream, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise ValueError(str(error)) from None  # says file and line too
    if node is None:
        raise ValueError(f"{file}, line 1: the file is empty")
    return node


def _mapping(node: yaml.Node, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()) -> dict[str, yaml.Node]:
    """The values of a mapping by key. If no key is required, all keys are allowed."""
    _require(isinstance(node, yaml.MappingNode), node, "expected `key: value` lines here")
    values: dict[str, yaml.Node] = {}
    allowed = required + optional
    for key_node, value in node.value:
        key = _text(key_node)
        _require(key not in values, key_node, f"{key!r} is given twice")
        _require(not allowed or key in allowed, key_node, f"unknown key {key!r}, expected one of {', '.join(allowed)}")
        values[key] = value
    for key in required:
        _require(key in values, node, f"`{key}:` is missing")
    return values


def _items(node: yaml.Node) -> list[yaml.Node]:
    _require(isinstance(node, yaml.SequenceNode) and node.value, node, "expected a list here")
    return node.value


def _texts(node: yaml.Node) -> tuple[str, ...]:
    texts = tuple(_text(item) for item in _items(node))
    _require(len(set(texts)) == len(texts), node, "the same entry twice in one list")
    return texts


def _text(node: yaml.Node) -> str:
    _require(isinstance(node, yaml.ScalarNode) and node.value.strip(), node, "expected plain text here")
    return node.value
