"""Which joints change places in a mirrored picture, found by their names."""

import re
import unicodedata
from typing import NamedTuple

# Words for left and for right that pair with each other, in English, German, Dutch, French, Spanish, Italian,
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
    """What names say of sides.

    Attributes:
      pairs: names that differ by the side alone, in the order of the first.
      remarks: lines on names that look like one side without the other, or alike where no pair was found.
    """

    pairs: list[tuple[str, str]]
    remarks: list[str]


def _bare(text: str) -> str:
    """Without accents and other forms of the same letters."""
    text = unicodedata.normalize("NFKD", text.replace("ı", "i"))
    return "".join(letter for letter in text if not ("\u0300" <= letter <= "\u036f"))


def _plain(text: str) -> str:
    """As `_bare`, without case."""
    return _bare(text).casefold()


_OTHER: dict[str, list[str]] = {}
for _left, _right in _WORDS:
    for _side, _across in ((_left, _right), (_right, _left)):
        for _word in _side.split():
            # The words of one row may differ in their endings only: as far down a row, first.
            _at = _side.split().index(_word)
            _found = [_plain(word) for word in _across.split()]
            _OTHER.setdefault(_plain(_word), []).extend([*_found[_at : _at + 1], *_found])
# "l" and short words only as words of their own; the others also inside of a name ("armgauche").
_INSIDE = sorted((word for word in _OTHER if len(word) > 3 or not word.isascii()), key=len, reverse=True)
_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[^\W\d_A-Za-z]+|\d+|[\W_]+")


def find(names: list[str]) -> Sides:
    """Pairs joints whose names differ by the side: left_eye, LShoulder, eyeR, hand.l, R1, 左手."""
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
        f"the joint {name!r} looks like one side and has no other side: it is not flipped"
        for place, name in enumerate(names)
        if place not in taken and _has_side(name)
    ]
    if not pairs and (twins := _twins(names)):
        text = ", ".join(f"{a!r} and {b!r}" for a, b in twins[:3])
        remarks.append(f"no flip pairs, but {text} look like two sides: state flip_pairs if they are")
    return Sides(pairs, remarks)


def _words(name: str) -> list[str]:
    """The words, numbers and separators that a name is made of; together they are the name."""
    return _WORD.findall(_bare(name))


def _mirrored(name: str) -> list[str]:
    """What the joint on the other side may be called, the likeliest first, as by `_plain`."""
    words, found = _words(name), []
    plain = [_plain(word) for word in words]
    for place, word in enumerate(plain):
        for other in _OTHER.get(word, ()):
            found.append("".join([*plain[:place], other, *plain[place + 1 :]]))
    whole = "".join(plain)
    for word in _INSIDE:
        if word in whole:
            found += [whole.replace(word, other, 1) for other in _OTHER[word]]
    # Last, a letter at the name's end that no separator sets off: leye, eyer, LEYE.
    across = {"l": "r", "r": "l"}
    if len(whole) > 1:
        found += [across[whole[0]] + whole[1:]] if whole[0] in across else []
        found += [whole[:-1] + across[whole[-1]]] if whole[-1] in across else []
    return list(dict.fromkeys(found))


def _has_side(name: str) -> bool:
    """Whether a name says its side in so many words."""
    plain = [_plain(word) for word in _words(name)]
    certain = {"l", "r", *_INSIDE}
    return len(plain) > 1 and any(word in certain for word in plain)


def _twins(names: list[str]) -> list[tuple[str, str]]:
    """Names that are alike but for one word or number, two and two."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        words = [_plain(word) for word in _words(name)]
        numbers = [place for place, word in enumerate(words) if word.isdecimal()]
        for place in numbers or range(len(words)):
            if len(words) > 1:
                alike.setdefault((*words[:place], "*", *words[place + 1 :]), []).append(name)
    return [(group[0], group[1]) for group in alike.values() if len(group) == 2]
