"""The durable dialect: topics with a log, and cursors that outlive connections. Knows its frames."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, AsyncIterator, Optional, Union

from .connection import Connection, TidegateError, dumps


@dataclass(frozen=True)
class Published:
    """A message is on the disk."""

    topic: str
    seq: int
    duplicate: bool


@dataclass(frozen=True)
class Message:
    """A message of a subscription; `ack()` it when it is handled."""

    topic: str
    seq: int
    payload: Any
    redelivered: bool
    _subscription: "DurableSubscription" = field(repr=False, compare=False)

    async def ack(self) -> None:
        """Acks everything up to this message."""
        await self._subscription.ack(self.seq)


@dataclass(frozen=True)
class Gap:
    """Messages that will not come."""

    topic: str
    first: int
    last: int
    reason: str


@dataclass
class _Publish:
    text: str
    has_key: bool
    topic: str
    answer: asyncio.Future[Published]
    is_sent: bool = False


class DurableSubscription:
    """A durable subscription; iterate over it. One connection has one for each topic."""

    def __init__(self, durable: "Durable", topic: str, sub_name: str, ask: dict[str, Any]) -> None:
        self.topic = topic
        self.sub_name = sub_name
        self.topic_id: Optional[str] = None
        self.epoch: Optional[int] = None
        self._durable = durable
        self._ask = ask
        self._mark = ""
        self._bound_name = sub_name
        self._asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # At most a window, which the server keeps: nothing is lost here.
        self._queue: asyncio.Queue[Union[Message, Gap, TidegateError]] = asyncio.Queue()
        self._handled = 0  # acked by the caller, on this connection or before
        self._delivered = 0  # the server takes no ack beyond what this connection delivered
        self._acked = 0
        self._ended: Optional[TidegateError] = None

    async def ack(self, seq: int) -> None:
        """Acks everything up to `seq`, as soon as this connection has delivered it."""
        self._handled = max(self._handled, seq)
        await self._flush()

    async def _flush(self) -> None:
        seq = min(self._handled, self._delivered)
        if self._acked < seq and self.topic_id and not self._ended:
            frame = {"type": "ack", "topic": self.topic_id, "sub_name": self.sub_name, "seq": seq}
            if await self._durable._send(dumps(frame)):
                self._acked = seq

    async def get(self) -> Union[Message, Gap]:
        """The next message or gap."""
        item = await self._queue.get()
        if isinstance(item, TidegateError):
            self._queue.put_nowait(item)
            raise item
        return item

    async def __aiter__(self) -> AsyncIterator[Message]:
        while True:
            try:
                item = await self.get()
            except TidegateError as error:
                if error.code in ("closed", "unsubscribed"):
                    return
                raise
            # Gaps are told by `get`; whoever iterates wants messages.
            if isinstance(item, Message):
                yield item

    async def unsubscribe(self) -> None:
        """Ends it here; the cursor stays on the server."""
        if not self._ended:
            frame = {"type": "unsubscribe", "topic": self.topic_id or self.topic, "sub_name": self.sub_name,
                     "ref": "leaving"}
            await self._durable._send(dumps(frame))
            self._end(TidegateError("unsubscribed", "unsubscribed by this side"))

    async def _attach(self) -> None:
        self._mark = self._durable._next_mark("s")
        ask: dict[str, Any] = {"type": "subscribe", "topic": self.topic_id or self.topic, "sub_name": self.sub_name,
                               "ref": self._mark}
        if self.topic_id is None:
            ask.update(self._ask)
        else:
            # From its first answer on its cursor says where it goes on.
            keep = {key: value for key, value in self._ask.items() if key == "max_in_flight"}
            ask.update(keep, epoch=self.epoch)
        await self._durable._send(dumps({key: value for key, value in ask.items() if value is not None}))

    def _handle_subscribed(self, frame: dict[str, Any]) -> None:
        cursor = int(frame.get("cursor", 0))
        if self.epoch is not None and frame.get("epoch") != self.epoch:
            self._handled = cursor
        self.topic_id, self.epoch = frame["topic"], frame.get("epoch")
        self._bound_name = frame.get("sub_name", self.sub_name)
        self._acked = self._delivered = cursor
        if not self._asked.done():
            self._asked.set_result(None)

    async def _handle_message(self, frame: dict[str, Any]) -> None:
        seq = int(frame["seq"])
        if seq <= self._delivered:
            # The cursor was moved back on purpose: all from here on is to be handled again.
            self._handled = min(self._handled, seq - 1)
            self._acked = min(self._acked, seq - 1)
        self._delivered = seq
        if seq <= self._handled:
            # Handled before, and only the ack was lost.
            await self._flush()
            return
        message = Message(frame["topic"], seq, frame.get("payload"), bool(frame.get("redelivered")), self)
        self._queue.put_nowait(message)

    def _handle_gap(self, frame: dict[str, Any]) -> None:
        first, last = int(frame.get("from", 0)), int(frame.get("to", 0))
        self._delivered = max(self._delivered, last)
        self._queue.put_nowait(Gap(frame["topic"], first, last, str(frame.get("reason", ""))))

    def _detach(self) -> None:
        # What waits comes again, from the cursor on.
        self._delivered = self._acked = 0
        while not self._queue.empty():
            self._queue.get_nowait()

    def _end(self, error: TidegateError) -> None:
        if self._ended is None:
            self._ended = error
            self._durable._subscriptions.discard(self)
            if not self._asked.done():
                self._asked.set_exception(error)
                self._asked.exception()
            self._queue.put_nowait(error)


class Durable(Connection):
    """A connection to a durable mount, `/v1/ws` by default."""

    protocol = "tidegate.durable.v1"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._publishes: dict[str, _Publish] = {}
        self._subscriptions: set[DurableSubscription] = set()
        self._mark = 0

    async def publish(self, topic: str, payload: Any, *, idempotency_key: Optional[str] = None,
                      timeout_s: Optional[float] = None) -> Published:
        """Stores a message; returns when it is on the disk. While the connection is lost it waits."""
        if self.error:
            raise self.error
        if self.queue_max <= len(self._publishes):
            raise TidegateError("overloaded", f"{self.queue_max} publishes wait, and queue_max = {self.queue_max}")
        mark = self._next_mark("p")
        frame = {"type": "publish", "topic": topic, "ref": mark, "payload": payload}
        if idempotency_key is not None:
            frame["idempotency_key"] = idempotency_key
        answer: asyncio.Future[Published] = asyncio.get_running_loop().create_future()
        entry = _Publish(dumps(frame), idempotency_key is not None, topic, answer)
        self._publishes[mark] = entry
        try:
            if self.is_open:
                await self._send_publish(entry)
            key = "request_s_max" if entry.is_sent else "offline_s_max"
            published: Published = await self._bounded(answer, f"a publish to {topic}", timeout_s, key)
            return published
        finally:
            self._publishes.pop(mark, None)

    async def subscribe(self, topic: str, sub_name: str, *, from_seq: Optional[int] = None, seek: bool = False,
                        max_in_flight: Optional[int] = None, timeout_s: Optional[float] = None) -> DurableSubscription:
        """Reads a topic, by id or name, from the cursor of `sub_name` on; 0 is the earliest kept."""
        await self._wait_open(f"a subscribe to {topic}")
        if any(topic in (one.topic, one.topic_id) for one in self._subscriptions):
            raise TidegateError("already_subscribed", f"this connection reads {topic}: use a second one")
        ask = {"from_seq": from_seq, "seek": True if seek else None, "max_in_flight": max_in_flight}
        subscription = DurableSubscription(self, topic, sub_name, ask)
        self._subscriptions.add(subscription)
        await subscription._attach()
        try:
            waiting = asyncio.shield(subscription._asked)
            await self._bounded(waiting, f"a subscribe to {topic}", timeout_s, "request_s_max")
        except BaseException:
            await subscription.unsubscribe()
            raise
        return subscription

    def _next_mark(self, kind: str) -> str:
        self._mark += 1
        return f"{kind}{self._mark}"

    async def _send_publish(self, entry: _Publish) -> None:
        # Before, not behind: a loss while it goes out must find it marked.
        entry.is_sent = True
        entry.is_sent = await self._send(entry.text)

    async def _handle_open(self) -> None:
        for subscription in list(self._subscriptions):
            await subscription._attach()
        for entry in list(self._publishes.values()):
            if not entry.is_sent:
                await self._send_publish(entry)

    async def _handle_frame(self, frame: dict[str, Any]) -> None:
        kind = frame.get("type")
        if kind == "pub_ack":
            self._answer(frame, None)
        elif kind == "error":
            self._refused(frame)
        elif kind == "subscribed":
            for one in list(self._subscriptions):
                if one._mark == frame.get("ref"):
                    one._handle_subscribed(frame)
        elif kind == "message":
            for one in list(self._subscriptions):
                if one.topic_id == frame.get("topic"):
                    await one._handle_message(frame)
        elif kind in ("gap", "unsubscribed"):
            for one in list(self._subscriptions):
                if (one.topic_id, one._bound_name) == (frame.get("topic"), frame.get("sub_name")):
                    if kind == "gap":
                        one._handle_gap(frame)
                    elif frame.get("reason") is not None:
                        reason = frame["reason"]
                        one._end(TidegateError(reason, f"the subscription ended: {reason}"))

    def _answer(self, frame: dict[str, Any], error: Optional[TidegateError]) -> bool:
        entry = self._publishes.get(str(frame.get("ref")))
        if entry is None or entry.answer.done():
            return entry is not None
        if error:
            entry.answer.set_exception(error)
        else:
            published = Published(frame["topic"], int(frame["seq"]), bool(frame.get("duplicate")))
            entry.answer.set_result(published)
        return True

    def _refused(self, frame: dict[str, Any]) -> None:
        error, mark = TidegateError.of_frame(frame), frame.get("ref")
        if mark == "leaving" or self._answer(frame, error):
            return
        for one in list(self._subscriptions):
            if mark is not None and one._mark == mark:
                one._end(error)
                return
        self.on_error(error)

    def _handle_lost(self, code: int) -> None:
        for entry in list(self._publishes.values()):
            if entry.is_sent and not entry.has_key and not entry.answer.done():
                text = "the connection was lost before the answer: the message may be stored or not"
                entry.answer.set_exception(TidegateError("unknown_outcome", text))
            entry.is_sent = False
        for subscription in self._subscriptions:
            subscription._detach()

    def _handle_end(self, error: TidegateError) -> None:
        for entry in list(self._publishes.values()):
            if not entry.answer.done():
                entry.answer.set_exception(error)
        for subscription in list(self._subscriptions):
            subscription._end(error)
