"""REST of a server, with the tenant of the token. Knows routes and documents; the standard library
speaks HTTP, on a thread, for it blocks."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Optional

from .connection import TidegateError, Token, dumps, token_of

ANSWER_BYTES_MAX = 256 << 20


class Rest:
    """`base` is where the server's `/` is, with the prefix of a proxy if there is one."""

    def __init__(self, base: str, token: Token = None, *, request_s_max: float = 10.0) -> None:
        self.base = base.rstrip("/")
        self.token = token
        self.request_s_max = request_s_max

    async def request(self, method: str, path: str, body: Any = None, *, timeout_s: Optional[float] = None) -> Any:
        """Any route; what is refused raises, with the status in `details`."""
        limit = self.request_s_max if timeout_s is None else timeout_s
        data = None if body is None else dumps(body).encode()
        for renew in (False, True):
            token = await token_of(self.token, renew)
            ask = asyncio.to_thread(self._ask, method, path, data, token, limit)
            try:
                return await asyncio.wait_for(ask, limit)
            except (asyncio.TimeoutError, TimeoutError) as error:
                text = f"no answer to {method} {path} within request_s_max = {limit} s"
                raise TidegateError("timeout", text, key="request_s_max", limit=limit) from error
            except TidegateError as error:
                if error.details.get("status") != 401 or renew or not callable(self.token):
                    raise
        raise AssertionError("the second answer was returned or raised")

    def _ask(self, method: str, path: str, data: Optional[bytes], token: Optional[str], limit: float) -> Any:
        request = urllib.request.Request(f"{self.base}{path}", data, method=method)
        request.add_header("Content-Type", "application/json")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=limit) as answer:
                text = answer.read(ANSWER_BYTES_MAX)
        except urllib.error.HTTPError as error:
            raise refused(error) from error
        except (urllib.error.URLError, ConnectionError, OSError) as error:
            if isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError):
                raise TimeoutError from error
            raise TidegateError("disconnected", f"cannot reach {self.base}: {error}") from error
        try:
            return json.loads(text) if text else None
        except ValueError:
            return text.decode(errors="replace")

    async def topic(self, name: str) -> dict[str, Any]:
        """Makes a durable topic, or finds it."""
        made: dict[str, Any] = await self.request("POST", "/v1/topics", {"name": name})
        return made

    async def delete_topic(self, topic: str) -> None:
        """Deletes a durable topic with all its messages."""
        await self.request("DELETE", f"/v1/topics/{quote(topic)}")

    async def messages(self, topic: str, *, from_seq: int = 1, limit: int = 100) -> list[dict[str, Any]]:
        """Messages of a durable topic, from a seq on."""
        path = f"/v1/topics/{quote(topic)}/messages?from_seq={from_seq}&limit={limit}"
        found: list[dict[str, Any]] = (await self.request("GET", path))["messages"]
        return found

    async def push(self, topic: str, event: str, payload: Any = None) -> Any:
        """Pushes to a relay topic."""
        return await self.request("POST", "/v1/relay/push", {"topic": topic, "event": event, "payload": payload})

    async def presence(self, topic: str) -> list[dict[str, Any]]:
        """Who is present in a relay topic."""
        answer = await self.request("GET", f"/v1/relay/presence?topic={quote(topic)}")
        found: list[dict[str, Any]] = answer["members"]
        return found


def refused(error: urllib.error.HTTPError) -> TidegateError:
    """A problem document as an error."""
    detail = None
    try:
        problem = json.loads(error.read(1 << 20))
        detail = problem.get("detail") or problem.get("title")
    except (ValueError, AttributeError, OSError):
        pass
    return TidegateError("http", detail or f"HTTP {error.code}", status=error.code)


def quote(text: str) -> str:
    """A text in a path or a query."""
    return urllib.parse.quote(text, safe="")
