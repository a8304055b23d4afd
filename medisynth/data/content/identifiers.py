"""Detection of text and columns that could identify a person.

By patterns alone: a name that is an ordinary word is missed, and an ordinary word that looks like
a name is reported. A person must look at every report.
"""

import re
import unicodedata
from collections.abc import Callable
from difflib import get_close_matches

import pandas as pd

from governance.records.content import IdentifyingColumn, TextKind

_MONTHS = (
    "jan|feb|mar|apr|may|jun|jul|aug|sep|sept|oct|nov|dec|january|february|march|april|june|july|"
    "august|september|october|november|december|ene|abr|ago|dic|enero|febrero|marzo|abril|mayo|"
    "junio|julio|agosto|septiembre|octubre|noviembre|diciembre|janv|fev|févr|avr|juin|juil|aout|"
    "août|mrt|mei|okt|dez|mär|mai"
)
_DAY, _MONTH, _YEAR = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])", r"(?:19|20)\d\d"
_DATES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?<![\d.,/-]){_DAY}(?P<s>[./-]){_MONTH}(?P=s){_YEAR}(?!\d)",
        rf"(?<![\d.,/-]){_MONTH}(?P<s>[./-]){_DAY}(?P=s){_YEAR}(?!\d)",
        rf"(?<![\d.,/-]){_YEAR}(?P<s>[./-]){_MONTH}(?P=s){_DAY}(?!\d)",
        # two-digit years only with two-digit days and months: "1/2/15" is also a setting
        r"(?<![\d.,/-])(?:0[1-9]|[12]\d|3[01])(?P<s>[./-])(?:0[1-9]|1[0-2])(?P=s)\d\d(?![\d.,/-])",
        r"(?<![\d.,/-])(?:0[1-9]|1[0-2])(?P<s>[./-])(?:0[1-9]|[12]\d|3[01])(?P=s)\d\d(?![\d.,/-])",
        rf"(?<!\d){_YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?!\d)",
        rf"(?<!\d){_DAY}(?:st|nd|rd|th)?[ ./-]*(?:de )?\b(?:{_MONTHS})\b[ .,/-]*(?:de )?(?:{_YEAR}|\d\d)(?!\d)",
        rf"\b(?:{_MONTHS})\b[ .]*{_DAY}(?:st|nd|rd|th)?[ .,]+{_YEAR}(?!\d)",
    )
)
_TIME = re.compile(
    r"(?<![\d:.,])(?:(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d)?|(?:[01]?\d|2[0-3])[:.h][0-5]\d[:.m][0-5]\d|"
    r"(?:0?[1-9]|1[0-2])[:.][0-5]\d(?=\s*[ap]\.?m\b))(?![\d:.,]*\d)",
    re.IGNORECASE,
)
_TIME_MISREAD = re.compile(r"(?:[01]\d|2[0-3])[0-5]\d[.:][0-5]\d")  # "14:59:20", a colon lost
_NAME_LABEL = re.compile(
    r"\b(?:patient(?:in|e)?|pat|pt|paciente|paziente|full|first|last|family|sur|given|maiden)?"
    r"[ ._-]*(?:name|nombre|nome|naam|nachname|vorname|apellidos?|surname)\s*[:=]|"
    r"\b(?:patient(?:in|e)?|paciente|paziente)\s*[:=]\s*[^\W\d]|"
    r"\b(?:d\.?\s?o\.?\s?b\b|born\b|birth\s?(?:date|day)|date of birth|geb(?:oren|\.|urtsdatum)|"
    r"fecha (?:de )?nac|f\. ?nac|n[ée]e? le|date de naissance|data (?:di|de) nasc)",
    re.IGNORECASE,
)
_NUMBER_LABEL = re.compile(
    r"\b(?:(?:pat(?:ient)?|pt|hosp(?:ital)?|case|exam|study)[ ._-]*(?:id|no|nr|num(?:ber)?|#)|"
    r"id|mrn|nhc|nhs|urn|bsn|ssn|dni|cip|acc(?:ession)?(?:[ ._-]*(?:no|nr|#|num(?:ber)?))?|"
    r"n[ºo°]\s?hist(?:oria)?|historia)\b[ .:#=-]*(?P<value>[A-Z]{0,3}[ -]?\d[\d -]{2,})",
    re.IGNORECASE,
)
_ID_LABEL_ALONE = re.compile(
    r"\b(?:pat(?:ient)?|pt)[ ._-]*(?:id|no|nr|num(?:ber)?)\b|\b(?:mrn|nhc)\b", re.IGNORECASE
)
_DIGITS = re.compile(r"(?<![\d.,])\d{6,}(?![\d.,]*\d)|(?<!\d)\d{3}[ -]\d{3}[ -]\d{4}(?!\d)")
_CARET = re.compile(r"[^\W\d_]{2,}\^[^\W\d_]+")
_COMMA = re.compile(r"\b([^\W\d_](?:[^\W\d_]|['-]){2,}), ?([^\W\d_](?:[^\W\d_]|['-])*)(?![\w'-])")
_TITLE = re.compile(
    r"\b(?:mrs?|ms|miss|dr|dra|frau|herr|sra?|srta|mme|mlle)\b\.? ?([A-ZÀ-Þ][^\W\d_]{2,})", re.I
)
_WORD = re.compile(r"[^\W\d_](?:[^\W\d_]|['-])*")

# Words that scanners and sonographers write; matched with one or two letters misread.
_SCANNER_WORDS_TEXT = """
voluson aloka siemens acuson toshiba canon aplio mindray resona philips epiq affiniti hitachi
samsung medison sonoace esaote mylab logiq sonoscape edan prosound general vascular fetal fetus
head brain cardiac heart abdomen femur thorax cervix spine face profile kidney placenta trim
trimester rout routine har harm harmonic high low mid intermedia intermediate penetration
resolution speed freeze cine sec min max gain power depth freq frequency zoom dist distance
prof almacenando store stored print pared art arteria artery carotid carotida vena vein frame
scan scanner simulated phantom preset obstetrics obstetric gynecology gyn obs anatomy early
growth biometry doppler color colour mode angle persist smooth edge enhance line density
dynamic range compound crossbeam left right izq izda izquierdo izquierda derecho derecha der
long trans axial sagittal coronal transverse upper lower middle gestational age single twin
area circ circumference volume value report page image view plane median standard default ovary
uterus adnexa endo vaginal abdominal convex linear probe transducer focus tissue index bpd ofd
hc ac fl crl nt tcd efw lmp edd edc ga avg sd mean hadlock quad soft sharp medium detail expert
pro pure wave auto optimization optimisation
"""
SCANNER_WORDS = frozenset(_SCANNER_WORDS_TEXT.split())


def text_kind(text: str) -> TextKind | None:
    """Classify a burned-in line of text that could identify a person.

    Args:
        text: One line as read.

    Returns:
        "name" for a personal name, or a label such as "Name:", "DOB" or "Pat. ID"; "date" for a
        calendar date; "time" for a time of day; "number" for a labelled number of at least three
        digits or a run of at least six. None for scanner words, settings, measurements and frame
        counters. One name without a label, comma or caret is None: too many words look like it.
    """
    plain = " ".join(text.split())
    if any(pattern.search(plain) for pattern in _DATES):
        return "date"
    if _NUMBER_LABEL.search(plain):
        return "number"
    if _NAME_LABEL.search(plain) or _ID_LABEL_ALONE.search(plain):
        return "name"
    if _TIME.search(plain) or _TIME_MISREAD.fullmatch(plain):
        return "time"
    if any(not _is_counter(run) for run in _DIGITS.findall(plain)):
        return "number"
    return "name" if looks_like_name(plain) else None


def looks_like_name(text: str) -> bool:
    """Whether a text looks like a person's name of at least two words, or with caret or comma."""
    if _CARET.search(text):
        return True
    titled = _TITLE.search(text)
    if titled and not is_scanner_word(titled[1]):
        return True
    for family, given in _COMMA.findall(text):
        if family[0].isupper() and given[0].isupper() and not is_scanner_word(family):
            return True
    words = text.split()
    if not 2 <= len(words) <= 4 or not all(_WORD.fullmatch(word.strip(".,;!|")) for word in words):
        return False
    bare = [word.strip(".,;!|") for word in words]
    long = [word for word in bare if len(word) >= 3]
    return (
        len(long) >= 2
        and all(_has_name_case(word) for word in long)
        and not any(is_scanner_word(word) for word in long)
    )


def is_scanner_word(word: str) -> bool:
    """Whether a word is one that scanners write, even with a letter or two misread."""
    folded = _folded(word)
    if folded in SCANNER_WORDS:
        return True
    return len(folded) >= 5 and bool(get_close_matches(folded, SCANNER_WORDS, n=1, cutoff=0.87))


def masked(text: str) -> str:
    """Replace every letter and digit of a text and cut it to 80 characters.

    Capitals become "A", other letters "a", digits "0": "Smith Anna" is "Aaaaa Aaaa".
    """
    return "".join(_masked_character(character) for character in text)[:80]


def _masked_character(character: str) -> str:
    if unicodedata.category(character).startswith("N"):
        return "0"
    if character.isalpha() or unicodedata.combining(character):
        return "A" if character.isupper() else "a"
    return character


def _has_name_case(word: str) -> bool:
    return word.isupper() or (word[0].isupper() and any(letter.islower() for letter in word))


def _is_counter(digits: str) -> bool:
    """Whether digits may be a frame counter such as 12/34 whose slash was read as 7 or 1."""
    if len(digits) > 9:
        return False
    splits = ((digits[:k], digits[k + 1 :]) for k in range(1, len(digits) - 1) if digits[k] in "71")
    return any(
        len(left) <= len(right) <= 4 and right[0] != "0" and int(left) <= int(right)
        for left, right in splits
    )


def _folded(text: str) -> str:
    parts = unicodedata.normalize("NFKD", text.casefold())
    return "".join(part for part in parts if not unicodedata.combining(part))


# Words of a column's name, lower case and without accents, that mean a direct identifier.
_COLUMN_WORDS = {
    "personal names": "surname firstname lastname forename givenname familyname fullname maidenname "
    "patientname nombre apellido apellidos nachname vorname nom prenom cognome nome sobrenome naam "
    "achternaam voornaam initials iniciales initialen",
    "dates of birth": "dob birthdate birthday birthdatum dateofbirth geburtsdatum gebdat "
    "geboortedatum fechanacimiento nacimiento naissance nascita nascimento",
    "addresses": "address adresse direccion indirizzo endereco adres street strasse calle rue "
    "postcode postalcode zipcode zip plz codigopostal",
    "telephone numbers": "phone telephone telefon telefono telefone telefoon mobile handy movil "
    "fax",
    "e-mail addresses": "email emailaddress correo",
    "hospital or national numbers": "mrn nhc nhs bsn ssn dni nie cpf cip urn iban passport pasaporte "
    "reisepass passeport passaporto paspoort accession accessionnumber hospitalnumber hospitalid "
    "socialsecurity socialsecuritynumber medicalrecord medicalrecordnumber nationalid insurance "
    "insurancenumber versichertennummer krankenkasse kvnr historia historiaclinica personnummer "
    "ahv insee fnr license licence",
}
_BY_WORD = {word: what for what, words in _COLUMN_WORDS.items() for word in words.split()}
_PEOPLE_TEXT = """
patient person first last family full given maiden mother father husband doctor physician
operator sonographer radiologist subject user contact referring legal own
"""
_PEOPLE = frozenset(_PEOPLE_TEXT.split())
# Names of columns whose long numbers are keys, sizes or digests of the data set itself.
_KEY_WORDS_TEXT = """
image images img file filename path frame bytes size width height pixel pixels sha sha1 sha256
md5 phash phash64 hash digest checksum crc row index seed original group duplicate patient
patients exam examination study subject case
"""
_KEY_WORDS = frozenset(_KEY_WORDS_TEXT.split())
_EMAIL = re.compile(r"[^\s@]+@[^\s@]+\.[A-Za-z]{2,}")
_PHONE = re.compile(
    r"(?:\+|00)\d{1,3}[ ./-]?(?:\(?\d{1,4}\)?[ ./-]?){2,5}|\(?0\d{1,4}\)?[ /-]\d[\d -]{5,}"
)
_UID = re.compile(r"[0-2](?:\.\d+){5,}")
_LONG_NUMBER = re.compile(r"[A-Z]{0,3}\d{6,14}")
_MOST = 0.5  # share of a column's values that must look alike
_MIN_NAMES = 3  # distinct ones; fewer are levels, such as planes or scanners


def identifying_columns(metadata: pd.DataFrame) -> tuple[IdentifyingColumn, ...]:
    """Find columns of a metadata file that could identify a person.

    By name in several languages, and by values: e-mail addresses, telephone numbers, calendar
    dates, personal names, DICOM UIDs and long distinct numbers. Columns that are by their name the
    data set's own keys (image, patient, examination) are not judged by their long numbers: whether
    such a key is a pseudonym cannot be seen from it.

    Args:
        metadata: The metadata file as text, one column a column.

    Returns:
        In the order of the file, each column once, values never repeated.
    """
    found = []
    for name in metadata.columns:
        column = metadata[name].dropna().astype(str).str.strip()
        values = column[column != ""]
        reason = reason_by_name(str(name)) or _reason_by_values(str(name), values)
        if reason and len(values):  # an empty column identifies nobody
            found.append(IdentifyingColumn(column=str(name), reason=reason, n_values=len(values)))
    return tuple(found)


def _words_of(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z\d])(?=[A-Z])", " ", name)
    return re.findall(r"[a-z\d]+", _folded(spaced))


def reason_by_name(name: str) -> str | None:
    """Why the name of a column or of a text in a file suggests an identifier; None if not."""
    words = _words_of(name)
    # "date of birth" is one word of the list written as three, "given_name" one written as two
    joined = [
        "".join(words[start:stop])
        for start in range(len(words))
        for stop in range(start + 1, min(len(words), start + 4) + 1)
    ]
    for word in joined:
        if word in _BY_WORD and not (word == "address" and {"ip", "mac"} & set(words)):
            return f"its name says that it holds {_BY_WORD[word]}"
    if {"name", "names"} & set(words) and _PEOPLE & set(words):
        return "its name says that it holds personal names"
    if "birth" in words and not {"weight", "order", "plurality", "mode", "outcome"} & set(words):
        return "its name says that it holds dates of birth"
    return "its name says that it holds telephone numbers" if words == ["tel"] else None


def _reason_by_values(name: str, values: "pd.Series[str]") -> str | None:
    distinct = list(dict.fromkeys(values))
    if not distinct:
        return None
    if any(_EMAIL.search(value) for value in distinct):
        return "values hold e-mail addresses"
    if _share(distinct, lambda value: bool(_UID.fullmatch(value))) >= _MOST:
        return "values look like DICOM UIDs, which lead back to the original study"
    if _share(distinct, lambda value: bool(_PHONE.fullmatch(value))) >= _MOST:
        return "values look like telephone numbers"
    if _share(distinct, lambda value: text_kind(value) == "date") >= _MOST:
        return "values hold calendar dates"
    if len(distinct) >= _MIN_NAMES and _share(distinct, looks_like_name) >= _MOST:
        return "values look like personal names"
    is_key = bool(_KEY_WORDS & set(_words_of(name)))
    if not is_key and len(distinct) >= max(2, len(values) / 10) and _are_numbers(distinct):
        return "values are long distinct numbers, as hospital numbers are"
    return None


def _are_numbers(distinct: list[str]) -> bool:
    lengths = [len(value) for value in distinct]
    usual = max(set(lengths), key=lengths.count)
    return _share(
        distinct, lambda value: bool(_LONG_NUMBER.fullmatch(value))
    ) >= _MOST and lengths.count(usual) >= 0.8 * len(lengths)


def _share(values: list[str], fits: Callable[[str], bool]) -> float:
    return sum(map(fits, values)) / len(values)
