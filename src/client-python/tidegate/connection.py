"""One connection that comes back by itself. Knows sockets, time and tokens; what is said on it is
known to the dialects, which are built on it."""

from __future__ import annotations

import asyncio
import inspect
import json
import random
import time
from typing import Any, Awaitable, Callable, Literal, Optional, Union

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

Token = Union[None, str, Callable[..., Union[str, Awaitable[str]]]]

POLICY_CLOSES_MAX = 3
STABLE_S = 5.0
RENEW_S_MIN = 5.0


class TidegateError(Exception):
    """What went wrong: `code` is for programs, the text for people."""

    def __init__(self, code: Any, text: str, **details: Any) -> None:
        super().__init__(text)
        self.code = code
        self.details = details

    @classmethod
    def of_frame(cls, frame: dict[str, Any]) -> "TidegateError":
        """An error frame."""
        details = {key: frame[key] for key in ("topic", "sub_name") if key in frame}
        return cls(frame.get("code", "refused"), str(frame.get("message", "refused")), **details)


def after_close(code: int) -> tuple[Literal["stop", "renew", "retry"], int]:
    """What to do after a close, and from which attempt on the wait is counted."""
    if code in (1000, 1002, 1003, 1007, 1009, 4403, 4409):
        return "stop", 0
    if code == 4401:
        return "renew", 0
    return "retry", {1008: 3, 1001: 2, 1012: 2, 1013: 4}.get(code, 0)


def backoff_s(attempt: int, s_min: float = 0.5, s_max: float = 30.0) -> float:
    """Full jitter: anything between nothing and a ceiling that doubles with each attempt."""
    return random.random() * min(s_max, s_min * float(1 << min(attempt, 30)))


async def token_of(source: Token, renew: bool) -> Optional[str]:
    """The token of a request."""
    given: Any = source
    if callable(source):
        given = source(renew=renew)
        if inspect.isawaitable(given):
            given = await given
    if given is None or given == "":
        return None
    # A line end in a token would begin a header of its own.
    if not isinstance(given, str) or not all("!" <= letter <= "~" for letter in given):
        raise TidegateError("token", "the token is not a line of visible characters")
    return given


def dumps(value: Any) -> str:
    """JSON, or an error that concerns this value alone."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise TidegateError("invalid_payload", f"the payload is not JSON: {error}") from error


class Connection:
    """What the dialects have in common. `async with` connects and closes."""

    protocol = ""

    def __init__(self, url: str, token: Token = None, *, connect_s_max: float = 10.0, request_s_max: float = 10.0,
                 offline_s_max: float = 60.0, attempts_max: Optional[int] = None, backoff_s_min: float = 0.5,
                 backoff_s_max: float = 30.0, ping_interval_s: float = 25.0, queue_max: int = 1024,
                 **options: Any) -> None:
        self.url = url
        self.token = token
        self.connect_s_max = connect_s_max
        self.request_s_max = request_s_max
        self.offline_s_max = offline_s_max
        self.attempts_max = attempts_max
        self.backoff = (backoff_s_min, backoff_s_max)
        self.ping_interval_s = ping_interval_s
        self.queue_max = queue_max
        self.error: Optional[TidegateError] = None
        # Refusals that belong to nothing that waits, and what else nobody else tells.
        self.on_error: Callable[[TidegateError], None] = lambda error: None
        self._options = options
        self._socket: Optional[ClientConnection] = None
        self._runner: Optional[asyncio.Task[None]] = None
        self._renewal: Optional[asyncio.Task[None]] = None
        self._renewed_at = float("-inf")
        self._opened = asyncio.Event()

    async def connect(self) -> None:
        """Connects, and again whenever that is lost. Fails when there is no first connection."""
        if self.error:
            raise self.error
        if self._runner is None:
            self._socket = await self._dial(False)
            self._runner = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Ends it for good."""
        self._end(TidegateError("closed", "closed by this side"))
        runner, self._runner = self._runner, None
        if runner:
            runner.cancel()
            await asyncio.gather(runner, return_exceptions=True)
        if self._renewal:
            self._renewal.cancel()
        socket, self._socket = self._socket, None
        if socket:
            await socket.close()

    async def __aenter__(self):  # type: ignore[no-untyped-def]
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def is_open(self) -> bool:
        """Whether something can be sent now."""
        return self._socket is not None and self._opened.is_set()

    async def _dial(self, renew: bool) -> ClientConnection:
        try:
            token = await asyncio.wait_for(token_of(self.token, renew), self.connect_s_max)
            headers = {"Authorization": f"Bearer {token}"} if token else None
            return await connect(
                self.url, subprotocols=[Subprotocol(self.protocol)], additional_headers=headers, max_size=None,
                open_timeout=self.connect_s_max, ping_interval=self.ping_interval_s, proxy=None, **self._options)
        except (asyncio.TimeoutError, TimeoutError) as error:
            raise TidegateError("timeout", f"no connection within connect_s_max = {self.connect_s_max} s") from error
        except InvalidStatus as error:
            status = error.response.status_code
            raise TidegateError("upgrade", f"the server answered {status} at {self.url}", status=status) from error
        except (OSError, InvalidHandshake, EOFError) as error:
            raise TidegateError("disconnected", f"cannot connect to {self.url}: {error}") from error
        except InvalidURI as error:
            raise TidegateError("url", str(error)) from error

    async def _run(self) -> None:
        attempt, policy = 0, 0
        while True:
            socket, opened_at = self._socket, time.monotonic()
            assert socket is not None
            code = await self._serve(socket)
            self._opened.clear()
            self._socket = None
            self._handle_lost(code)
            if STABLE_S <= time.monotonic() - opened_at:
                attempt, policy = 0, 0
            action, least = after_close(code)
            policy += code == 1008
            can_renew = action == "renew" and callable(self.token)
            if action == "stop" or (action == "renew" and not can_renew) or POLICY_CLOSES_MAX <= policy:
                self._end(TidegateError("disconnected", f"the connection ended with {code}", close_code=code))
                return
            renew = can_renew
            while self._socket is None:
                if self.attempts_max is not None and self.attempts_max <= attempt:
                    self._end(TidegateError("disconnected", f"attempts_max = {self.attempts_max} attempts failed"))
                    return
                if not (can_renew and attempt == 0):
                    await asyncio.sleep(backoff_s(max(attempt, least), *self.backoff))
                attempt += 1
                try:
                    self._socket = await self._dial(renew)
                except TidegateError as error:
                    status = error.details.get("status")
                    if status == 401 and callable(self.token) and not renew:
                        renew = True
                    elif status is not None and status < 500 and status not in (408, 429):
                        self._end(error)
                        return
                except Exception as error:  # noqa: BLE001 a source of tokens may raise anything
                    self.on_error(TidegateError("token", f"no token: {error}"))

    async def _serve(self, socket: ClientConnection) -> int:
        try:
            await self._handle_open()
            self._opened.set()
            async for text in socket:
                if isinstance(text, str):
                    await self._frame(text)
        except ConnectionClosed:
            pass
        return socket.close_code or 1006

    async def _frame(self, text: str) -> None:
        try:
            frame = json.loads(text)
            if not isinstance(frame, dict):
                raise ValueError("not an object")
        except (ValueError, RecursionError) as error:
            self.on_error(TidegateError("invalid_frame", f"the server sent what is not a frame: {error}"))
            return
        if frame.get("type") == "token_expiring":
            self._renew()
        else:
            await self._handle_frame(frame)

    def _renew(self) -> None:
        """However often the server says so, a source is asked every 5 s at most."""
        running = self._renewal is not None and not self._renewal.done()
        if callable(self.token) and not running and RENEW_S_MIN <= time.monotonic() - self._renewed_at:
            self._renewed_at = time.monotonic()
            self._renewal = asyncio.create_task(self._renewed())

    async def _renewed(self) -> None:
        try:
            token = await asyncio.wait_for(token_of(self.token, True), self.connect_s_max)
            await self._send(dumps({"type": "auth", "token": token}))
        except Exception as error:  # noqa: BLE001 a source of tokens may raise anything
            self.on_error(TidegateError("token", f"no token: {error}"))

    async def _send(self, text: str) -> bool:
        """Whether it went out: only an open connection takes anything."""
        if self._socket is None:
            return False
        try:
            await self._socket.send(text)
        except ConnectionClosed:
            return False
        return True

    async def _wait_open(self, what: str) -> None:
        if self.error:
            raise self.error
        if self._runner is None:
            raise TidegateError("disconnected", "there is no connection: `connect` first")
        if not self._opened.is_set():
            await self._bounded(self._opened.wait(), what, self.offline_s_max, "offline_s_max")
        if self.error:
            raise self.error

    async def _bounded(self, waiting: Any, what: str, limit: Optional[float], key: str) -> Any:
        limit = getattr(self, key) if limit is None else limit
        try:
            return await asyncio.wait_for(waiting, limit)
        except (asyncio.TimeoutError, TimeoutError) as error:
            raise TidegateError("timeout", f"no answer to {what} within {key} = {limit} s", key=key, limit=limit) from error

    def _end(self, error: TidegateError) -> None:
        if self.error is None:
            self.error = error
            self._opened.set()
            self._handle_end(error)

    async def _handle_open(self) -> None:
        """Says what a new connection has to be told."""

    async def _handle_frame(self, frame: dict[str, Any]) -> None:
        raise NotImplementedError

    def _handle_lost(self, code: int) -> None:
        """Forgets what the old connection had."""

    def _handle_end(self, error: TidegateError) -> None:
        """Tells everybody who waits."""

