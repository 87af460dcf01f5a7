"""What a model knew before it was fine-tuned: eight small suites of questions with four choices each.

A base model answers them better than chance, and a fine-tuning that has nothing to do with them should change nothing.
So the target is compared with the base model alone, suite by suite (`groupBy: suite`, `maximumGroupRegression`). They
measure what is lost, not how good a model is: they are easy on purpose, made from tables here, and in no benchmark.

The rows are a function of nothing: the same bytes on every machine, in every release that has the same `VERSION`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

VERSION = 1
ROWS = 120
"""Of each suite: without a single loss 59 would exclude one of 5 %; with a few it takes more."""
CHOICES = 4
SEED = 17

CAPITALS = (
    "France: Paris, Germany: Berlin, Italy: Rome, Spain: Madrid, Portugal: Lisbon, Ireland: Dublin, Norway: "
    "Oslo, Sweden: Stockholm, Finland: Helsinki, Denmark: Copenhagen, Iceland: Reykjavik, Poland: Warsaw, "
    "Austria: Vienna, Hungary: Budapest, Greece: Athens, Bulgaria: Sofia, Romania: Bucharest, Belgium: "
    "Brussels, Croatia: Zagreb, Serbia: Belgrade, Ukraine: Kyiv, Russia: Moscow, Turkey: Ankara, Egypt: "
    "Cairo, Morocco: Rabat, Kenya: Nairobi, Ghana: Accra, Senegal: Dakar, Ethiopia: Addis Ababa, Tunisia: "
    "Tunis, Algeria: Algiers, Iraq: Baghdad, Iran: Tehran, Jordan: Amman, Lebanon: Beirut, Syria: Damascus, "
    "Qatar: Doha, India: New Delhi, Pakistan: Islamabad, Nepal: Kathmandu, Bangladesh: Dhaka, Thailand: "
    "Bangkok, Vietnam: Hanoi, Japan: Tokyo, China: Beijing, South Korea: Seoul, Indonesia: Jakarta, Malaysia: "
    "Kuala Lumpur, Australia: Canberra, New Zealand: Wellington, Canada: Ottawa, Cuba: Havana, Peru: Lima, "
    "Chile: Santiago, Argentina: Buenos Aires, Uruguay: Montevideo, Colombia: Bogota, Venezuela: Caracas, "
    "Ecuador: Quito, Brazil: Brasilia"
)
OPPOSITES = (
    "hot cold, big small, tall short, fast slow, old new, rich poor, hard soft, wet dry, full empty, "
    "light dark, early late, strong weak, loud quiet, clean dirty, happy sad, near far, high low, open "
    "closed, deep shallow, wide narrow, thick thin, generous selfish, sharp blunt, sweet bitter, rough "
    "smooth, brave cowardly, cheap expensive, safe dangerous, true false, right wrong, first last, inside "
    "outside, up down, borrow lend, above below, begin end, buy sell, win lose, give take, push pull, "
    "love hate, remember forget, arrive depart, accept refuse, increase decrease, appear disappear, "
    "attack defend, build destroy, laugh cry, ask answer, day night, summer winter, north south, east "
    "west, friend enemy, war peace, success failure, float sink, entrance exit, victory defeat, ancient "
    "modern, guilty innocent"
)
KINDS = {
    "a fruit": "apple banana cherry grape lemon mango orange peach pear plum apricot strawberry",
    "an animal": "horse tiger rabbit elephant monkey sheep goat wolf dolphin frog camel giraffe",
    "a tool": "hammer saw screwdriver wrench drill chisel pliers shovel rake axe crowbar spanner",
    "a musical instrument": "piano violin trumpet flute guitar drum cello harp clarinet trombone banjo saxophone",
    "a colour": "red blue green yellow purple brown pink grey turquoise crimson beige maroon",
    "a piece of furniture": "table chair sofa wardrobe bookcase bed desk stool cupboard bench armchair dresser",
    "a part of the body": "elbow knee shoulder ankle wrist chin forehead thumb stomach neck heel hip",
    "a vehicle": "car bicycle train lorry tractor motorcycle tram ambulance van scooter bus submarine",
    "a profession": "doctor teacher carpenter lawyer plumber nurse baker farmer dentist tailor pilot judge",
    "a kind of weather": "rain snow fog hail sunshine thunder drizzle frost storm blizzard mist sleet",
}
PAST = (
    "go went, eat ate, drink drank, write wrote, run ran, see saw, take took, give gave, come came, buy "
    "bought, bring brought, think thought, teach taught, catch caught, begin began, sing sang, swim swam, "
    "drive drove, ride rode, break broke, speak spoke, choose chose, fly flew, grow grew, know knew, "
    "throw threw, draw drew, wear wore, tear tore, feel felt, keep kept, sleep slept, leave left, lose "
    "lost, build built, send sent, spend spent, sit sat, stand stood, win won, find found, hold held, "
    "tell told, sell sold, make made, hear heard, meet met, forget forgot, hide hid, fall fell, freeze "
    "froze, shake shook, steal stole, wake woke, bite bit, blow blew, fight fought, lend lent, lead led, "
    "ring rang, rise rose, seek sought, shine shone, sink sank, stick stuck"
)
NAMES = (
    *("Ann", "Ben", "Carla", "David", "Emma", "Frank", "Grace", "Henry", "Iris", "Jack"),
    *("Kate", "Leo", "Mia", "Noah", "Olga", "Paul", "Rosa", "Sam", "Tina", "Victor"),
)
THINGS = ("cup", "book", "hat", "lamp", "ball", "key", "box", "coat", "phone", "map")
COLOURS = ("red", "blue", "green", "yellow", "white", "black")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)

Asked = tuple[str, str, list[str]]
"""A question, its answer, and wrong ones to choose from."""


def rows() -> list[dict[str, Any]]:
    """Return all rows, `ROWS` of each suite, as MultipleChoice tasks read them: with the columns suite and group."""
    return [row for suite, make in SUITES.items() for row in _suite(suite, make)]


def text() -> str:
    """Return them as JSON lines."""
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows())


def _suite(suite: str, make: Callable[[random.Random], Iterator[Asked]]) -> Iterator[dict[str, Any]]:
    draws, seen = random.Random(f"{SEED} {suite}"), set[str]()
    for question, answer, wrong in make(draws):
        if question in seen:
            continue
        seen.add(question)
        others = [each for each in dict.fromkeys(wrong) if each != answer][: CHOICES - 1]
        at = (len(seen) - 1) % CHOICES  # the right one stands in each place equally often
        choices = [*others[:at], answer, *others[at:]]
        yield {"question": question, "choices": choices, "answer": at, "suite": suite}
        if len(seen) == ROWS:
            return


def _near(draws: random.Random, value: int) -> list[str]:
    steps = [step for step in (-20, -10, -3, -2, -1, 1, 2, 3, 10, 20) if value + step >= 0]
    return [str(value + step) for step in draws.sample(steps, CHOICES - 1)]


def _arithmetic(draws: random.Random) -> Iterator[Asked]:
    while True:
        a, b = sorted((draws.randint(2, 60), draws.randint(2, 40)), reverse=True)
        c, d = draws.randint(2, 12), draws.randint(2, 12)
        asked, value = draws.choice([(f"{a} plus {b}", a + b), (f"{a} minus {b}", a - b), (f"{c} times {d}", c * d)])
        yield f"What is {asked}?", str(value), _near(draws, value)


def _series(draws: random.Random) -> Iterator[Asked]:
    while True:
        start, step = draws.randint(0, 40), draws.choice([1, 2, 3, 4, 5, 10])
        shown = [start + step * at for at in range(4)]
        value = start + step * 4
        listed = ", ".join(map(str, shown))
        yield f"Which number comes next: {listed}?", str(value), _near(draws, value)


def _calendar(draws: random.Random) -> Iterator[Asked]:
    asked = [
        (f"Which {kind} comes {steps} {unit}{'s' if steps > 1 else ''} {way} {name}?", names, at + sign * steps)
        for kind, unit, names in (("day", "day", DAYS), ("month", "month", MONTHS))
        for at, name in enumerate(names)
        for steps in (1, 2, 3, 4)
        for way, sign in (("after", 1), ("before", -1))
    ]
    draws.shuffle(asked)
    for question, names, at in asked:
        answer = names[at % len(names)]
        yield question, answer, draws.sample([each for each in names if each != answer and each not in question], 4)


def _capitals(draws: random.Random) -> Iterator[Asked]:
    cities = dict(pair.split(": ") for pair in CAPITALS.split(", "))
    asked = [
        *((f"What is the capital of {country}?", city, list(cities.values())) for country, city in cities.items()),
        *((f"{city} is the capital of which country?", country, list(cities)) for country, city in cities.items()),
    ]
    draws.shuffle(asked)
    for question, answer, names in asked:
        yield question, answer, draws.sample([each for each in names if each != answer], 3)


def _opposites(draws: random.Random) -> Iterator[Asked]:
    pairs = [pair.split() for pair in OPPOSITES.split(", ")]
    asked = [(one, other) for pair in pairs for one, other in (pair, reversed(pair))]
    draws.shuffle(asked)
    words = sorted({word for pair in pairs for word in pair})
    for one, other in asked:
        near = [each for pair in pairs if {one, other} & set(pair) for each in pair]
        yield f"Which word is the opposite of '{one}'?", other, draws.sample([w for w in words if w not in near], 3)


def _kinds(draws: random.Random) -> Iterator[Asked]:
    asked = [(kind, word) for kind, listed in KINDS.items() for word in listed.split()]
    draws.shuffle(asked)
    for kind, word in asked:
        others = [draws.choice(listed.split()) for name, listed in KINDS.items() if name != kind]
        shown = draws.sample(others, 3)
        listed = ", ".join(sorted([word, *shown]))
        yield f"Which of these is {kind}: {listed}?", word, shown


def _grammar(draws: random.Random) -> Iterator[Asked]:
    verbs = [pair.split() for pair in PAST.split(", ")]
    asked = [
        *((f"What is the past tense of the verb '{now}'?", then, 1, verbs) for now, then in verbs),
        *((f"Of which verb is '{then}' the past tense?", now, 0, verbs) for now, then in verbs),
    ]
    draws.shuffle(asked)
    for question, answer, form, listed in asked:
        yield question, answer, draws.sample([pair[form] for pair in listed if pair[form] != answer], 3)


def _reading(draws: random.Random) -> Iterator[Asked]:
    while True:
        people, things = draws.sample(NAMES, 4), draws.sample(THINGS, 4)
        colours = [draws.choice(COLOURS) for _ in people]
        told = " ".join(
            f"{name} has a {colour} {thing}." for name, colour, thing in zip(people, colours, things, strict=True)
        )
        at = draws.randrange(4)
        if draws.random() < 0.5:
            yield f"{told} Who has the {things[at]}?", people[at], [each for each in people if each != people[at]]
        else:
            others = [each for each in things if each != things[at]]
            yield f"{told} What does {people[at]} have?", f"a {colours[at]} {things[at]}", [
                f"a {draws.choice(COLOURS)} {each}" for each in others
            ]  # fmt: skip


SUITES: dict[str, Callable[[random.Random], Iterator[Asked]]] = {
    "arithmetic": _arithmetic,
    "series": _series,
    "calendar": _calendar,
    "capitals": _capitals,
    "opposites": _opposites,
    "kinds": _kinds,
    "grammar": _grammar,
    "reading": _reading,
}
