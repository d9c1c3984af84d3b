"""python-socketio against the example `socketio`, over polling, WebSocket and both."""

import asyncio
import sys

import socketio

WAYS = {"polling": ["polling"], "websocket": ["websocket"], "both": ["polling", "websocket"]}


async def check(address, transports):
    client = socketio.AsyncClient(reconnection=False)
    back = asyncio.Queue()
    client.on("message-back", lambda *args: back.put_nowait(args))

    @client.on("question")
    async def question(how):
        return ("yes", how)

    await client.connect(f"http://{address}", transports=transports, namespaces=["/", "/custom"], wait_timeout=5)
    args = (1, "two", {"three": [True, None, 1.5]}, b"\x00\xff")
    await client.emit("message", args)
    assert await asyncio.wait_for(back.get(), 5) == args
    assert tuple(await client.call("message-with-ack", args, timeout=5)) == args
    assert await client.call("message-with-ack", "here", namespace="/custom", timeout=5) == "here"
    assert await client.call("ask", "loud", timeout=5) == ["yes", "loud"]
    await client.disconnect()


async def main(address):
    for way, transports in WAYS.items():
        await asyncio.wait_for(check(address, transports), 30)
        print(f"ok      python-socketio over {way}")


asyncio.run(main(sys.argv[1]))
