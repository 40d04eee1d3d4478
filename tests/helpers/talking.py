"""What tests of `triform chat` share."""

from __future__ import annotations

import triform
from triform.runtime.generation.options.generation import GenerationOptions

FIRST, SECOND = "The ferry left the harbor", "Where did it go?"
SHORT = ("--max-new-tokens", 8, "--temperature", 0)
GREEDY = GenerationOptions(max_new_tokens=8, temperature=0)


def answers(bundle, *texts, options=GREEDY, system=None):
    """Those of the library, each text being a turn of one conversation, as they are printed."""
    talk = triform.Conversation(triform.load(bundle), system=system, options=options)
    return "".join(talk.send(text).text + "\n" for text in texts)
