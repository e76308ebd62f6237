"""The small words of a few languages by which labels are told from what stands around them."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


VERBS = _words("""
    is are was were be equals ist sind war waren beträgt betrug lautet est sont était es son era è
""")
"""What parts a label from its value in a sentence: "the total is 5"."""

WEEKDAYS = _words("""
    monday tuesday wednesday thursday friday saturday sunday mon tue wed thu fri sat sun
    montag dienstag mittwoch donnerstag freitag samstag sonntag
    lundi mardi mercredi jeudi vendredi samedi dimanche
    lunes martes miércoles jueves viernes sábado domingo
""")

CURRENCIES = _words("""
    usd eur gbp chf cad aud nzd jpy cny inr sek nok dkk pln czk huf ron try brl mxn zar kr fr
""")

NUMBER_WORDS = {
    word: number
    for number, words in enumerate(
        (
            *("one|a|ein|eine", "two|zwei|deux|dos", "three|drei|trois|tres", "four|vier|quatre"),
            *(
                "five|fünf|cinq|cinco",
                "six|sechs|seis",
                "seven|sieben|sept|siete",
                "eight|acht|huit",
            ),
            *("nine|neun|neuf|nueve", "ten|zehn|dix|diez", "eleven|elf|onze", "twelve|zwölf|douze"),
        ),
        1,
    )
    for word in words.split("|")
}
"""Numbers that stand before a million in words: "two million"."""

UNITS = _words("""
    kg mg km cm mm ml kwh mwh kw mw gw kb mb gb tb sqm sqft ft lb lbs oz ha hz khz mhz ghz
""")
"""What may stand at a number without a blank: "5kg"."""

FILLERS = (
    _words("""
    a an the at to of on about approximately approx around roughly circa ca almost nearly up over
    under only now currently fixed just exactly before after than later no within by until us
    der die das dem den am ab zum ein eine bis herr frau le la les el los un une il de
    mr mrs ms dr prof
    one two three four five six seven eight nine ten eleven twelve fifteen twenty thirty forty
    fifty sixty seventy eighty ninety hundred thousand million
""")
    | WEEKDAYS
    | CURRENCIES
)
"""What may stand between a label and its value: "Due date: no later than Friday, 1 May"."""

CONNECTORS = _words(", ; / & • and or und oder et ou y e")
"""What stands between the values of a list."""

ARTICLES = _words("the a an our its your their this der die das le la les el los il")
"""What begins a label in a sentence."""

PREPOSITIONS = _words("of for in per to from by at on with de des von für del di")
"""What goes on with a label: "the price of the item"."""

NEUTRAL = CURRENCIES | _words("""
    the and for our your its this that der die das und des del los las les von per
""")
"""Words of three letters and more that neither a name nor a label means."""

ABBREVIATIONS = _words("""
    no nr st dr mr mrs ms prof approx ca circa incl excl max min est vs fig p pp
    mwst ust art abs bzw inkl zzgl ggf tel e g i z b u a d h n r s c o q
    jan feb mar apr jun jul aug sep sept oct okt nov dec dez
""")
"""What a point cuts short, so that it ends no sentence."""

YES = ("yes", "true", "ja", "oui", "sí", "si", "sim", "sì", "wahr", "vrai")
NO = ("no", "false", "nein", "non", "não", "falsch", "faux")
