"""The event dialect: named events both ways, answers by `id`. Knows its frames."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, AsyncIterator, Optional

from .connection import Connection, TidegateError, dumps


@dataclass(frozen=True)
class Event:
    """Something that the server says by itself."""

    event: str
    data: Any


class Events(Connection):
    """A connection to a gateway; iterate over `events()` for what it says by itself."""

    protocol = "tidegate.event.v1"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._requests: dict[int, asyncio.Future[Any]] = {}
        self._id = 0
        self._queue: asyncio.Queue[Optional[Event]] = asyncio.Queue()
        # How many events were lost because nobody took them out of the queue.
        self.missed = 0

    async def emit(self, event: str, data: Any = None) -> bool:
        """Sends an event that nobody answers. False where there is no connection."""
        return await self._send(dumps({"event": event, "data": data}))

    async def request(self, event: str, data: Any = None, *, timeout_s: Optional[float] = None) -> Any:
        """Sends an event and waits for its answer."""
        if self.error:
            raise self.error
        self._id += 1
        mark = self._id
        text = dumps({"event": event, "data": data, "id": mark})
        waiting = self._requests[mark] = asyncio.get_running_loop().create_future()
        try:
            if not await self._send(text):
                raise TidegateError("disconnected", "there is no connection")
            return await self._bounded(waiting, f"`{event}`", timeout_s, "request_s_max")
        finally:
            self._requests.pop(mark, None)

    async def events(self) -> AsyncIterator[Event]:
        """What the server says by itself, until the connection ends for good."""
        while self.error is None or not self._queue.empty():
            event = await self._queue.get()
            if event is None:
                return
            yield event

    async def _handle_frame(self, frame: dict[str, Any]) -> None:
        data, waiting = frame.get("data"), self._requests.get(frame.get("id", -1))
        if waiting is not None and not waiting.done():
            if isinstance(data, dict) and isinstance(data.get("error"), str):
                error = TidegateError(data.get("code", "refused"), data["error"], errors=data.get("errors"))
                waiting.set_exception(error)
            else:
                waiting.set_result(data)
        elif self._queue.qsize() < self.queue_max:
            self._queue.put_nowait(Event(str(frame.get("event")), data))
        else:
            self.missed += 1

    def _handle_lost(self, code: int) -> None:
        for waiting in self._requests.values():
            if not waiting.done():
                waiting.set_exception(TidegateError("disconnected", "the connection was lost before the answer"))

    def _handle_end(self, error: TidegateError) -> None:
        self._handle_lost(1006)
        self._queue.put_nowait(None)
