"""The client of Tidegate for asyncio: relay, durable and event dialects, and REST beside them."""

from .connection import Connection, TidegateError, Token, after_close, backoff_s
from .durable import Durable, DurableSubscription, Gap, Message, Published
from .events import Event, Events
from .relay import Lagged, Push, Relay, RelaySubscription
from .rest import Rest

__all__ = [
    "Connection", "Durable", "DurableSubscription", "Event", "Events", "Gap", "Lagged", "Message", "Published",
    "Push", "Relay", "RelaySubscription", "Rest", "TidegateError", "Token", "after_close", "backoff_s",
]
