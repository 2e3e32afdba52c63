"""Finds the joints that are swapped in a flipped picture, from their names."""

import re
import unicodedata
from typing import NamedTuple

# Pairs of words for left and for right, in English, German, Dutch, French, Spanish, Italian,
# Portuguese, Romanian, Polish, Czech, Russian, Ukrainian, Swedish, Danish, Norwegian, Finnish, Hungarian,
# Turkish, Greek, Vietnamese, Indonesian, Arabic, Hebrew, Hindi, Korean, Japanese, Chinese and Latin.
_WORDS = (
    ("left", "right"),
    ("links linke linker linkes linken", "rechts rechte rechter rechtes rechten"),
    ("gauche", "droite droit"),
    ("izquierda izquierdo izq izda izdo", "derecha derecho der dcha dcho"),
    ("sinistra sinistro sx", "destra destro dx"),
    ("esquerda esquerdo esq", "direita direito dir"),
    ("stanga stang", "dreapta drept"),
    ("lewa lewy lewe lewo", "prawa prawy prawe prawo"),
    ("leva levy leve levo", "prava pravy prave pravo"),
    ("левая левый левое лев", "правая правый правое прав"),
    ("ліва лівий ліве", "права правий праве"),
    ("vanster", "hoger"),
    ("venstre", "højre høyre"),
    ("vasen", "oikea"),
    ("bal", "jobb"),
    ("sol", "sag"),
    ("αριστερα αριστερο αριστερη αριστερος", "δεξια δεξι δεξιος"),
    ("trai", "phai"),
    ("kiri", "kanan"),
    ("hidari", "migi"),
    ("zuo", "you"),
    ("يسار أيسر يسرى", "يمين أيمن يمنى"),
    ("שמאל שמאלי שמאלית", "ימין ימני ימנית"),
    ("बायां बायीं बाएं", "दायां दायीं दाएं"),
    ("왼쪽 왼", "오른쪽 오른"),
    ("左", "右"),
    ("sinister sinistral", "dexter dextral"),
    ("l", "r"),
)


class Sides(NamedTuple):
    """The sides found in names.

    Attributes:
      pairs: names that differ only in the side, in the order of the first.
      remarks: lines about names that look like one side without the other, or, if no pair was found, about
        names that are similar.
    """

    pairs: list[tuple[str, str]]
    remarks: list[str]


def _bare(text: str) -> str:
    """The text without accents and with one form of each letter."""
    text = unicodedata.normalize("NFKD", text.replace("ı", "i"))
    return "".join(letter for letter in text if not ("\u0300" <= letter <= "\u036f"))


def _plain(text: str) -> str:
    """As `_bare`, in lower case."""
    return _bare(text).casefold()


_OTHER: dict[str, list[str]] = {}
for _left, _right in _WORDS:
    for _side, _across in ((_left, _right), (_right, _left)):
        for _word in _side.split():
            # The words of a row may differ only in their endings: try the word at the same place first.
            _at = _side.split().index(_word)
            _found = [_plain(word) for word in _across.split()]
            _OTHER.setdefault(_plain(_word), []).extend([*_found[_at : _at + 1], *_found])
# "l" and other short words count only as separate words; longer ones also inside a name ("armgauche").
_INSIDE = sorted((word for word in _OTHER if len(word) > 3 or not word.isascii()), key=len, reverse=True)
_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[^\W\d_A-Za-z]+|\d+|[\W_]+")


def find(names: list[str]) -> Sides:
    """Pairs joints whose names differ in the side: left_eye, LShoulder, eyeR, hand.l, R1, 左手."""
    there: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        there.setdefault(_plain(name), []).append(place)
    mirrored = [_mirrored(name) for name in names]
    pairs, taken = [], set()
    for place, candidates in enumerate(mirrored):
        for candidate in candidates:
            others = there.get(candidate, ())
            if place in taken or len(others) != 1 or others[0] in (place, *taken):
                continue
            if _plain(names[place]) in mirrored[others[0]]:
                taken |= {place, others[0]}
                pairs.append((names[place], names[others[0]]))
    remarks = [
        f"the joint {name!r} looks like one side, but there is no other side: it is not flipped"
        for place, name in enumerate(names)
        if place not in taken and _has_side(name)
    ]
    if not pairs and (twins := _twins(names)):
        text = ", ".join(f"{a!r} and {b!r}" for a, b in twins[:3])
        remarks.append(f"no flip pairs, but {text} look like two sides: state flip_pairs if they are")
    return Sides(pairs, remarks)


def _words(name: str) -> list[str]:
    """The words, numbers and separators of a name; joined they give the name."""
    return _WORD.findall(_bare(name))


def _mirrored(name: str) -> list[str]:
    """Possible names of the joint on the other side, the most likely first, in the form of `_plain`."""
    words, found = _words(name), []
    plain = [_plain(word) for word in words]
    for place, word in enumerate(plain):
        for other in _OTHER.get(word, ()):
            found.append("".join([*plain[:place], other, *plain[place + 1 :]]))
    whole = "".join(plain)
    for word in _INSIDE:
        if word in whole:
            found += [whole.replace(word, other, 1) for other in _OTHER[word]]
    # Last, a letter at the beginning or the end of the name, without a separator: leye, eyer, LEYE.
    across = {"l": "r", "r": "l"}
    if len(whole) > 1:
        found += [across[whole[0]] + whole[1:]] if whole[0] in across else []
        found += [whole[:-1] + across[whole[-1]]] if whole[-1] in across else []
    return list(dict.fromkeys(found))


def _has_side(name: str) -> bool:
    """Whether a name has a separate word for a side."""
    plain = [_plain(word) for word in _words(name)]
    certain = {"l", "r", *_INSIDE}
    return len(plain) > 1 and any(word in certain for word in plain)


def _twins(names: list[str]) -> list[tuple[str, str]]:
    """Pairs of names that differ only in one word or number."""
    similar: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        words = [_plain(word) for word in _words(name)]
        numbers = [place for place, word in enumerate(words) if word.isdecimal()]
        for place in numbers or range(len(words)):
            if len(words) > 1:
                similar.setdefault((*words[:place], "*", *words[place + 1 :]), []).append(name)
    return [(group[0], group[1]) for group in similar.values() if len(group) == 2]
