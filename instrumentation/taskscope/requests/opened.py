"""What is kept of a request as long as it is answered in the usual way, and which place of the list each thing has.

Read by the outermost layer. A list, not an object: making one and looking into it costs a third, and between the
turns of an application whatever is done costs three times what it does alone. The first two places are what
`taskscope.context` reads.
"""

from __future__ import annotations

from typing import Final

from taskscope.context import MAKE, REQUEST

__all__ = [
    "BEGAN",
    "BODY_BYTES",
    "ENDED",
    "FIRST_BYTE",
    "FOLLOWED",
    "HEADER",
    "LAYER",
    "MAKE",
    "OPENING",
    "RECEIVE",
    "REQUEST",
    "SCOPE",
    "SEND",
]

LAYER: Final = 2
"""The layer it came through."""
SCOPE: Final = 3
HEADER: Final = 4
"""The header of its response that bears its id."""
RECEIVE: Final = 5
SEND: Final = 6
"""The server's own."""
BEGAN: Final = 7
"""When it began, on the clock of `perf_counter`, as all of these."""
OPENING: Final = 8
"""The message that opened its response; None before."""
FIRST_BYTE: Final = 9
"""When that was handed over."""
ENDED: Final = 10
"""When all of its response was handed over; 0 before."""
BODY_BYTES: Final = 11
FOLLOWED: Final = 12
"""The exchange that has taken over, because something was not as usual; else None."""
