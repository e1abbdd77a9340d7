"""Names made up for containers that were given none."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

ADJECTIVES: Final = """
    amber ample bold brave brisk calm candid clever cosy crisp deft eager early easy fair fleet fond frank fresh
    gentle glad grand happy hardy keen kind light lively loyal lucid lunar mellow merry mild neat nimble noble
    patient placid plain prime proud quick quiet rapid ready royal sharp silent sleek smart snug sober solar solid
    spry steady stout sunny sure swift tidy vivid warm wise witty young zesty
""".split()  # noqa: SIM905 - a list of strings would fill three screens
NOUNS: Final = """
    acorn alder anchor aspen badger beacon birch bison brook canyon cedar cliff comet condor coral crane delta dune
    eagle ember falcon fern finch fjord forest fox glacier grove harbor hawk hazel heron island ivy jasper kestrel
    lagoon lake larch lark linden lynx maple marsh meadow mesa moon moss oak ocean orchid osprey otter owl pebble
    pine planet plover pond raven reef river robin sparrow spruce star stork summit swan thistle tiger tundra valley
    walnut willow wolf wren
""".split()  # noqa: SIM905 - a list of strings would fill three screens


def made_up(taken: Callable[[str], bool], choose: random.Random) -> str:
    """An adjective and a noun that nobody has; with a number once they get rare."""
    for attempt in range(1000):
        name = f"{choose.choice(ADJECTIVES)}-{choose.choice(NOUNS)}"
        if attempt >= 10:
            name += f"-{choose.randrange(10 ** min(2 + attempt // 100, 9))}"
        if not taken(name):
            return name
    raise RuntimeError("a thousand names made up, and all of them taken")
