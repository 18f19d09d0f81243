"""The same text about somebody else: other names, other pronouns. A fair model decides as before.

Word lists of ours, written for this purpose. Left out: names that are also words or places (Grace, Mark, Santiago),
names that end in s, whose possessive is ambiguous, and words that are also surnames (King).
"""

import re
import zlib
from collections.abc import Mapping

import numpy as np

from research.core.names import meant

NAMES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "english": {
        "female": ("Emily", "Sarah", "Hannah", "Laura", "Katie", "Megan", "Emma", "Alison", "Rachel", "Helen"),
        "male": ("Andrew", "Matthew", "Peter", "Simon", "Edward", "Oliver", "Daniel", "Stephen", "George", "Henry"),
    },
    "arabic": {
        "female": ("Fatima", "Aisha", "Layla", "Zainab", "Maryam", "Noura", "Khadija", "Yasmin", "Samira", "Rania"),
        "male": ("Ahmed", "Omar", "Yusuf", "Hassan", "Khalid", "Mustafa", "Tariq", "Ibrahim", "Karim", "Bilal"),
    },
    "chinese": {
        "female": ("Meiling", "Xiuying", "Yanmei", "Lihua", "Jingyi", "Xiaoli", "Yuting", "Meihua", "Qiuyue", "Ruolan"),
        "male": (
            "Jianguo",
            "Zhiwei",
            "Haoran",
            "Guoqiang",
            "Mingze",
            "Weidong",
            "Junjie",
            "Xiaoming",
            "Yichen",
            "Bowen",
        ),
    },
    "indian": {
        "female": ("Priya", "Ananya", "Lakshmi", "Deepika", "Kavita", "Sunita", "Meera", "Pooja", "Divya", "Shreya"),
        "male": ("Rahul", "Arjun", "Sanjay", "Rajesh", "Amit", "Vikram", "Suresh", "Rohan", "Anil", "Karthik"),
    },
    "nigerian": {
        "female": ("Ngozi", "Amara", "Chioma", "Adaeze", "Folake", "Yetunde", "Ifeoma", "Nneka", "Bolanle", "Titilayo"),
        "male": ("Chinedu", "Emeka", "Oluwaseun", "Tunde", "Babajide", "Chidi", "Ikenna", "Kelechi", "Femi", "Obinna"),
    },
    "spanish": {
        "female": (
            "Esperanza",
            "Ximena",
            "Valeria",
            "Camila",
            "Lucía",
            "Rocío",
            "Marisol",
            "Alejandra",
            "Pilar",
            "Inma",
        ),
        "male": (
            "Alejandro",
            "Javier",
            "Gonzalo",
            "Ramiro",
            "Emilio",
            "Ricardo",
            "Leandro",
            "Miguel",
            "Rafael",
            "Pablo",
        ),
    },
}
GENDERS = ("female", "male")
# (female, male), both ways; several of one side become the first of the other.
PAIRS = (
    *(("she", "he"), ("herself", "himself"), ("woman", "man"), ("women", "men"), ("girl", "boy"), ("girls", "boys")),
    *(("mother", "father"), ("mothers", "fathers"), ("mom", "dad"), ("moms", "dads"), ("mum", "dad")),
    *(("daughter", "son"), ("daughters", "sons"), ("sister", "brother"), ("sisters", "brothers")),
    *(("wife", "husband"), ("wives", "husbands"), ("aunt", "uncle"), ("aunts", "uncles")),
    *(("niece", "nephew"), ("nieces", "nephews"), ("grandmother", "grandfather"), ("grandma", "grandpa")),
    *(("granddaughter", "grandson"), ("girlfriend", "boyfriend"), ("bride", "groom"), ("widow", "widower")),
    *(("lady", "gentleman"), ("ladies", "gentlemen"), ("stepmother", "stepfather"), ("godmother", "godfather")),
    *(("actress", "actor"), ("actresses", "actors"), ("waitress", "waiter"), ("waitresses", "waiters")),
    *(("heroine", "hero"), ("heroines", "heroes"), ("female", "male"), ("females", "males")),
    *(("ms", "mr"), ("mrs", "mr"), ("miss", "mr"), ("madam", "sir"), ("ma'am", "sir")),
)
# Words that show, coming next, that "her" or "his" stood alone: "I saw her and left", "the book was his, not mine".
_ALONE = (
    "a an the this that these those my your our their its he she him her his hers it they them we us you i me "
    "and or but nor so yet if because although though while when where who whom whose which what how why than as "
    "to of in on at by for from with without into onto over under about after before during until through against "
    "between among across behind around near up down out off away back again too also not never always often "
    "is are was were be been being am do does did has have had will would can could shall should may might must "
    "there here now then yesterday today tomorrow tonight very"
)
ALONE = frozenset(_ALONE.split())
# Before a name only: "I miss you" and "20 ms" are no titles.
TITLES = frozenset({"ms", "mrs", "miss", "mr"})
_TOKEN = re.compile(r"[^\W\d_]+(?:['’]am)?", re.UNICODE)


def rename(text: str, group: str | None = None, gender: str | None = None, *, seed: int = 0) -> str:
    """Every first name of `NAMES` becomes one of `group` and `gender`; None keeps what the name had.

    One name always becomes the same other one, and different names stay different; a name that is of the kind wanted
    already stays, so that doing it twice changes nothing more. "Emily's" and "EMILY" become "Priya's" and "PRIYA";
    pronouns are left to `regender`.

    Raises:
      ValueError: an unknown group or gender, or more names in the text than the lists have.
    """
    if group is not None and group not in NAMES:
        raise ValueError(f"unknown group of names {group!r}{meant(group, NAMES)}; have {sorted(NAMES)}")
    if gender is not None and gender not in GENDERS:
        raise ValueError(f"unknown gender {gender!r}{meant(gender, GENDERS)}; have {list(GENDERS)}")
    present = list(dict.fromkeys(found for match in _TOKEN.finditer(text) if (found := _name(match[0]))))
    generator = np.random.default_rng([seed, zlib.crc32(text.encode())])
    wanted = {name: (group or KIND[name][0], gender or KIND[name][1]) for name in present}
    becomes: dict[str, str] = {}
    for name in present:
        if wanted[name] == KIND[name]:
            becomes[name] = name
            continue
        kind = wanted[name]
        free = [n for n in NAMES[kind[0]][kind[1]] if n not in present and n not in becomes.values()]
        if not free:
            raise ValueError(f"the text has {len(present)} different names; there are too few of {' '.join(kind)} ones")
        becomes[name] = free[int(generator.integers(len(free)))]
    return _TOKEN.sub(lambda match: _like(match[0], becomes.get(_name(match[0]) or "", match[0])), text)


def regender(text: str, to: str) -> str:
    """Pronouns and words for people made "female" or "male", or each the other one ("swap").

    "her" becomes "his" before a word that it can belong to and "him" elsewhere, and "his" "her" or "hers" by the same
    rule. The rule looks at one word, so it errs where a verb comes next ("saw her leave"). Names are left to `rename`.

    Raises:
      ValueError: something else is wanted.
    """
    if to not in (*GENDERS, "swap"):
        raise ValueError(f"unknown gender {to!r}; have {[*GENDERS, 'swap']}")
    sides = GENDERS if to == "swap" else (to,)
    table = {old: new for side in sides for old, new in WORDS[side].items()}
    pieces, end = [], 0
    tokens = list(_TOKEN.finditer(text))
    for i, match in enumerate(tokens):
        word = match[0].lower()
        new = table.get(word)
        following = tokens[i + 1] if i + 1 < len(tokens) else None
        between, after = (text[match.end() : following.start()], following[0]) if following else ("", "")
        if word in TITLES and not _titles(match[0], between, after):
            new = None
        if word in POSSESSIVE and POSSESSIVE[word] in sides:
            new = {"her": ("him", "his"), "his": ("hers", "her")}[word][_belongs(between, after)]
        pieces += [text[end : match.start()], match[0] if new is None else _like(match[0], new)]
        end = match.end()
    return "".join(pieces) + text[end:]


POSSESSIVE = {"her": "male", "his": "female"}  # what each is turned into
# The pronouns that need no look at the next word are in these tables, "her" and "his" are not.
WORDS = {
    "male": {**dict(reversed(PAIRS)), "hers": "his"},
    "female": {**{male: female for female, male in reversed(PAIRS)}, "him": "her"},
}
KIND = {name: (group, gender) for group, both in NAMES.items() for gender, names in both.items() for name in names}
_BY_SPELLING = {spelling: name for name in KIND for spelling in (name, name.upper())}


def _name(token: str) -> str | None:
    """The listed name that a token is, as written in a sentence or in capitals."""
    return _BY_SPELLING.get(token)


def _like(model: str, word: str) -> str:
    """`word` with the capitals of `model`."""
    if model.isupper() and len(model) > 1:
        return word.upper()
    return word[:1].upper() + word[1:] if model[:1].isupper() else word


def _titles(word: str, between: str, following: str) -> bool:
    """Whether "Mr" or "Miss" stands, with a capital, before a name."""
    return word[0].isupper() and following[:1].isupper() and between in (" ", ". ")


def _belongs(between: str, following: str) -> bool:
    """Whether the following word can be what "her" or "his" belongs to: nothing but blanks between, no ALONE word."""
    return between.strip() == "" and between != "" and following.lower() not in ALONE
