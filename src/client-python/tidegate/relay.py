"""The relay dialect: topics by name, which keep nothing. Knows its frames."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, AsyncIterator, Optional, Union

from .connection import Connection, TidegateError, dumps


@dataclass(frozen=True)
class Push:
    """Something that was pushed to a topic."""

    topic: str
    event: str
    payload: Any


@dataclass(frozen=True)
class Lagged:
    """So many pushes were lost, for somebody read too slowly: the server's outbox, or this queue."""

    topic: str
    missed: int


class RelaySubscription:
    """A topic that is heard; iterate over it."""

    def __init__(self, relay: "Relay", topic: str) -> None:
        self.topic = topic
        self._relay = relay
        self._queue: asyncio.Queue[Union[Push, Lagged, TidegateError]] = asyncio.Queue()
        self._missed = 0
        self._asked: Optional[asyncio.Future[None]] = None

    async def get(self) -> Union[Push, Lagged]:
        """The next push."""
        if self._missed and self._queue.empty():
            missed, self._missed = self._missed, 0
            return Lagged(self.topic, missed)
        item = await self._queue.get()
        if isinstance(item, TidegateError):
            self._queue.put_nowait(item)
            raise item
        return item

    async def __aiter__(self) -> AsyncIterator[Union[Push, Lagged]]:
        while True:
            try:
                item = await self.get()
            except TidegateError as error:
                if error.code in ("closed", "unsubscribed"):
                    return
                raise
            yield item

    async def unsubscribe(self) -> None:
        """Leaves the topic."""
        await self._relay._leave(self)

    def _put(self, item: Union[Push, Lagged]) -> None:
        # A relay keeps nothing, so neither does this: the new one is lost, and counted.
        if self._relay.queue_max <= self._queue.qsize():
            self._missed += item.missed if isinstance(item, Lagged) else 1
            return
        if self._missed:
            self._queue.put_nowait(Lagged(self.topic, self._missed))
            self._missed = 0
        self._queue.put_nowait(item)

    def _end(self, error: TidegateError) -> None:
        if self._asked and not self._asked.done():
            self._asked.set_exception(error)
        self._queue.put_nowait(error)


class Relay(Connection):
    """A connection to a relay mount, `/ws` by default."""

    protocol = "tidegate.relay.v1"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._topics: dict[str, RelaySubscription] = {}

    async def subscribe(self, topic: str, *, timeout_s: Optional[float] = None) -> RelaySubscription:
        """Hears a topic, after every reconnect too."""
        await self._wait_open(f"a subscribe to {topic}")
        if topic in self._topics:
            raise TidegateError("already_subscribed", f"this connection hears {topic} already")
        subscription = self._topics[topic] = RelaySubscription(self, topic)
        subscription._asked = asyncio.get_running_loop().create_future()
        await self._send(dumps({"type": "subscribe", "topic": topic}))
        try:
            await self._bounded(subscription._asked, f"a subscribe to {topic}", timeout_s, "request_s_max")
        except BaseException:
            await self._leave(subscription)
            raise
        return subscription

    async def send(self, topic: str, event: str, payload: Any = None) -> bool:
        """Gives a message to the topic's handler. False where there is no connection."""
        return await self._send(dumps({"type": "message", "topic": topic, "event": event, "payload": payload}))

    async def _leave(self, subscription: RelaySubscription) -> None:
        if self._topics.get(subscription.topic) is subscription:
            del self._topics[subscription.topic]
            await self._send(dumps({"type": "unsubscribe", "topic": subscription.topic}))
            subscription._end(TidegateError("unsubscribed", "unsubscribed by this side"))

    async def _handle_open(self) -> None:
        for topic in list(self._topics):
            await self._send(dumps({"type": "subscribe", "topic": topic}))

    async def _handle_frame(self, frame: dict[str, Any]) -> None:
        kind, subscription = frame.get("type"), self._topics.get(frame.get("topic", ""))
        if kind == "push" and subscription:
            subscription._put(Push(frame["topic"], str(frame.get("event")), frame.get("payload")))
        elif kind == "lagged" and subscription:
            subscription._put(Lagged(frame["topic"], int(frame.get("missed", 0))))
        elif kind == "subscribed" and subscription and subscription._asked and not subscription._asked.done():
            subscription._asked.set_result(None)
        elif kind == "error":
            self._refused(TidegateError.of_frame(frame), subscription)

    def _refused(self, error: TidegateError, subscription: Optional[RelaySubscription]) -> None:
        waits = subscription is not None and subscription._asked is not None and not subscription._asked.done()
        ends = error.code in ("join_rejected", "subscription_limit", "unauthorized", "forbidden")
        if subscription and error.code != "not_subscribed" and (waits or ends):
            del self._topics[subscription.topic]
            subscription._end(error)
        else:
            self.on_error(error)

    def _handle_end(self, error: TidegateError) -> None:
        for subscription in self._topics.values():
            subscription._end(error)
        self._topics.clear()
