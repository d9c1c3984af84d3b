"""What a program that installed the wheel sees of it. Knows the package and a server."""

import asyncio
import json
import os
import traceback

import websockets
from tidegate import Durable, Events, Lagged, Relay, Rest, TidegateError

ADDRESS = os.environ["TIDEGATE_ADDRESS"]
TOKEN = os.environ["TIDEGATE_TOKEN"]
WS = f"ws://{ADDRESS}"
FAST = {"backoff_s_min": 0.005, "backoff_s_max": 0.02}


class Breaking:
    """Carries bytes to the server, and lets each connection break after a number of them."""

    def __init__(self):
        self.bytes = 1 << 40
        self.breaks = 0

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.carry, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()

    async def carry(self, reader, writer):
        host, port = ADDRESS.split(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        left = [self.bytes]

        async def copy(source, sink):
            try:
                while data := await source.read(4096):
                    sink.write(data[:max(0, left[0])])
                    await sink.drain()
                    left[0] -= len(data)
                    if left[0] <= 0:
                        break
            except (ConnectionError, OSError):
                pass
            for one in (writer, far_writer):
                one.close()

        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))
        self.breaks += left[0] <= 0
        if self.breaks >= 2:
            self.bytes = 1 << 40


async def a_silent_server():
    """Takes an upgrade and says nothing more."""
    return await websockets.serve(lambda socket: socket.wait_closed(), "127.0.0.1", 0,
                                  select_subprotocol=lambda *_: None)


async def durable_topics_are_published_and_read():
    rest = Rest(f"http://{ADDRESS}", TOKEN)
    topic = (await rest.topic("python-orders"))["id"]
    async with Durable(f"{WS}/v1/ws", TOKEN) as durable:
        acks = await asyncio.gather(*(durable.publish(topic, {"n": n}) for n in range(3)))
        assert sorted(ack.seq for ack in acks) == [1, 2, 3]
        first = await durable.publish(topic, 4, idempotency_key="k")
        again = await durable.publish(topic, 4, idempotency_key="k")
        assert (again.seq, again.duplicate) == (first.seq, True)
        subscription = await durable.subscribe("python-orders", "A", from_seq=0)
        seen = []
        async for message in subscription:
            seen.append(message.seq)
            await message.ack()
            if message.seq == 4:
                break
        assert seen == [1, 2, 3, 4], seen
        for bad in (object(), float("nan"), {1, 2}):
            await fails("invalid_payload", durable.publish(topic, bad))
        await fails("unknown_topic", durable.subscribe("0190c0de-0000-7000-8000-000000000001", "A"))
        await subscription.unsubscribe()
    assert [one["payload"] for one in await rest.messages(topic, from_seq=4)] == [4]
    async with Durable(f"{WS}/v1/ws", TOKEN) as other:
        await other.publish(topic, 5)
        resumed = await other.subscribe(topic, "A")
        assert (await asyncio.wait_for(resumed.get(), 5)).seq == 5


async def connections_that_break_lose_nothing():
    rest = Rest(f"http://{ADDRESS}", TOKEN)
    for nth in range(40):
        topic = (await rest.topic(f"python-resume-{nth}"))["id"]
        body = [{"payload": seq} for seq in range(1, 31)]
        await rest.request("POST", f"/v1/topics/{topic}/messages", body)
        async with Breaking() as proxy:
            durable = Durable(f"ws://127.0.0.1:{proxy.port}/v1/ws", TOKEN, **FAST)
            errors = []
            durable.on_error = errors.append
            await durable.connect()
            # From here on: the next connections break a little later each time.
            reader = await durable.subscribe(topic, "A", from_seq=0, max_in_flight=8)
            proxy.bytes = 500 + 67 * nth
            durable._socket.transport.abort()
            seen = set()
            while len(seen) < 30:
                message = await asyncio.wait_for(reader.get(), 10)
                assert message.seq <= len(seen) + 1, "nothing is left out"
                seen.add(message.seq)
                await message.ack()
            assert not errors, [str(error) for error in errors]
            key = await durable.publish(topic, 31, idempotency_key="k")
            assert key.seq == 31
            await durable.close()


async def relay_topics_are_heard():
    rest = Rest(f"http://{ADDRESS}", TOKEN)
    async with Relay(f"{WS}/ws", TOKEN, queue_max=2) as relay:
        room = await relay.subscribe("room")
        assert await relay.send("room", "said", {"n": 1})
        push = await asyncio.wait_for(room.get(), 5)
        assert (push.event, push.payload) == ("said", {"n": 1})
        await rest.push("room", "rest", [2])
        assert (await asyncio.wait_for(room.get(), 5)).payload == [2]
        assert len(await rest.presence("room")) == 1
        for n in range(5):
            await rest.push("room", "n", n)
        await asyncio.sleep(0.2)
        got = [await asyncio.wait_for(room.get(), 5) for _ in range(3)]
        assert [one.payload for one in got[:2]] == [0, 1]
        assert got[2] == Lagged("room", 3)
        await room.unsubscribe()
        assert await rest.presence("room") == []


async def what_is_not_answered_ends_in_time():
    async with await a_silent_server() as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Durable(url, request_s_max=0.1) as durable, Relay(url, request_s_max=0.1) as relay, \
                Events(url, request_s_max=0.1) as events:
            for waiting in (durable.publish("t", 1), durable.subscribe("t", "A"), relay.subscribe("t"),
                            events.request("e")):
                error = await fails("timeout", waiting)
                assert "request_s_max = 0.1 s" in str(error)
            assert await events.emit("e", {"n": 1})


async def a_token_is_renewed_or_refused():
    await fails("upgrade", Relay(f"{WS}/ws", "bad").connect())
    await fails("token", Relay(f"{WS}/ws", "two\nlines").connect())
    await fails("http", Rest(f"http://{ADDRESS}", "bad").topic("t"))
    asked = []

    async def source(renew):
        asked.append(renew)
        return TOKEN if renew else "stale"

    assert (await Rest(f"http://{ADDRESS}", source).topic("python-orders"))["name"] == "python-orders"
    assert asked == [False, True]
    auths = []

    async def expiring(socket):
        for _ in range(5):
            await socket.send(json.dumps({"type": "token_expiring", "seconds": 60}))
        async for text in socket:
            auths.append(json.loads(text))

    async with await websockets.serve(expiring, "127.0.0.1", 0, select_subprotocol=lambda *_: None) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Relay(url, lambda renew: "new" if renew else "old"):
            await asyncio.sleep(0.3)
    assert auths == [{"type": "auth", "token": "new"}], auths


async def fails(code, waiting):
    try:
        await waiting
    except TidegateError as error:
        assert error.code == code, f"{error.code}: {error}"
        return error
    raise AssertionError(f"no error {code}")


async def main():
    failed = 0
    for check in (durable_topics_are_published_and_read, connections_that_break_lose_nothing, relay_topics_are_heard,
                  what_is_not_answered_ends_in_time, a_token_is_renewed_or_refused):
        try:
            await asyncio.wait_for(check(), 60)
            print(f"ok      {check.__name__}")
        except Exception as error:  # noqa: BLE001 any failure of a check is that check's result
            failed += 1
            print(f"FAILED  {check.__name__}: {error!r}")
            traceback.print_exc(limit=-4)
    raise SystemExit(1 if failed else 0)


asyncio.run(main())
