"""The relay dialect, REST beside it and the echo mount, by Python's `websockets`.

Frames are compared byte for byte with what the protocol says. Each check names what it proves.
"""

import json
import sys
from pathlib import Path

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import Server, equal, run_checks, token, until  # noqa: E402

server = None


def client(sub="ada", ns="demo", path="/ws", **options):
    headers = {"Authorization": f"Bearer {token(sub, ns)}"}
    return connect(f"ws://{server.address}{path}", additional_headers=headers,
                   compression=None, max_size=None, **options)


def say(socket, text, answer):
    socket.send(text)
    equal(socket.recv(timeout=5), answer)


def subscribe(socket, topic):
    say(socket, '{"type":"subscribe","topic":"%s"}' % topic,
        '{"type":"subscribed","topic":"%s"}' % topic)


def silent(socket):
    """Nothing is on its way: the answer to a ping is the next frame."""
    say(socket, '{"type":"ping"}', '{"type":"pong"}')


def refused(status, **options):
    try:
        connect(f"ws://{server.address}{options.pop('path', '/ws')}", **options).close()
    except InvalidStatus as error:
        equal(error.response.status_code, status)
    else:
        raise AssertionError(f"the upgrade was accepted, expected {status}")


def presence(topic, sub="ada", ns="demo"):
    status, body = server.http("GET", f"/v1/relay/presence?topic={topic}", bearer=token(sub, ns))
    equal(status, 200)
    return json.loads(body)


def a_message_reaches_every_subscriber_and_its_sender():
    """R-06, R-08, R-09, X-22"""
    with client("ada") as ada, client("bob") as bob:
        subscribe(ada, "chat:lobby")
        subscribe(bob, "chat:lobby")
        ada.send('{"type":"message","topic":"chat:lobby","event":"say","payload":{"text":"hi"}}')
        push = '{"type":"push","topic":"chat:lobby","event":"say","payload":{"text":"hi"}}'
        equal(ada.recv(timeout=5), push)
        equal(bob.recv(timeout=5), push)


def a_payload_is_forwarded_as_its_bytes_came():
    """DESIGN: 42.50 stays 42.50; keys may come in any order, unknown ones are ignored"""
    payload = '{"n": 42.50 ,"big":123456789012345678901234567890,"s":"\\u00fc\\/ü"}'
    with client() as ada:
        subscribe(ada, "raw")
        ada.send('{"event":"e", "x":[1], "payload": %s , "topic":"raw","type":"message"}' % payload)
        equal(ada.recv(timeout=5),
              '{"type":"push","topic":"raw","event":"e","payload":%s}' % payload)


def ping_is_answered_by_pong():
    """R-08, R-09, D-21"""
    with client() as ada:
        say(ada, '{"type":"ping"}', '{"type":"pong"}')


def unsubscribe_ends_forwarding():
    """R-10, X-24"""
    with client("ada") as ada, client("bob") as bob:
        subscribe(ada, "t")
        subscribe(bob, "t")
        say(bob, '{"type":"unsubscribe","topic":"t"}', '{"type":"unsubscribed","topic":"t"}')
        say(bob, '{"type":"unsubscribe","topic":"never"}',
            '{"type":"unsubscribed","topic":"never"}')
        ada.send('{"type":"message","topic":"t","event":"e","payload":1}')
        equal(ada.recv(timeout=5), '{"type":"push","topic":"t","event":"e","payload":1}')
        silent(bob)


def who_is_not_subscribed_may_not_speak():
    """X-20"""
    with client() as ada:
        say(ada, '{"type":"message","topic":"chat:lobby","event":"e","payload":1}',
            '{"type":"error","message":"not subscribed to chat:lobby"}')


def a_second_subscribe_is_the_same_subscription():
    """X-21, D-17"""
    with client() as ada:
        subscribe(ada, "twice")
        subscribe(ada, "twice")
        ada.send('{"type":"message","topic":"twice","event":"e","payload":null}')
        equal(ada.recv(timeout=5), '{"type":"push","topic":"twice","event":"e","payload":null}')
        silent(ada)


def invalid_messages_get_an_error_and_the_socket_stays_open():
    """X-20, X-25, D-07"""
    with client() as ada:
        for bad in ["nonsense", "{}", '{"type":"what"}', '{"type":"subscribe"}', b"\x00\x01"]:
            ada.send(bad)
            answer = ada.recv(timeout=5)
            assert answer.startswith('{"type":"error","message":"'), answer
            if bad == "nonsense":
                assert answer.startswith('{"type":"error","message":"invalid message: '), answer
        silent(ada)


def the_51st_subscription_is_refused():
    """R-20, X-20"""
    with client() as ada:
        for number in range(50):
            subscribe(ada, f"t{number}")
        say(ada, '{"type":"subscribe","topic":"t50"}',
            '{"type":"error","message":"subscription limit reached (max 50)"}')
        say(ada, '{"type":"unsubscribe","topic":"t0"}', '{"type":"unsubscribed","topic":"t0"}')
        subscribe(ada, "t50")


def without_a_good_token_the_upgrade_is_401():
    """R-05, R-21, D-09"""
    refused(401)
    refused(401, additional_headers={"Authorization": "Bearer nonsense"})
    refused(401, path=f"/ws?token={token(ttl_s=-3600)}")
    bearer = {"Authorization": f"Bearer {token()[:-2]}AA"}
    refused(401, additional_headers=bearer)


def a_token_may_come_by_query_or_subprotocol():
    """D-09"""
    with connect(f"ws://{server.address}/ws?token={token()}") as ada:
        subscribe(ada, "q")
    with connect(f"ws://{server.address}/ws", subprotocols=["bearer", token()]) as ada:
        equal(ada.subprotocol, "bearer")
        subscribe(ada, "q")


def rest_pushes_to_whoever_listens_or_to_nobody():
    """R-07, C-06, X-28"""
    body = {"topic": "orders:new", "event": "created", "payload": {"id": 1}}
    raw = b'{"payload": {"total": 42.50}, "topic":"orders:new", "event":"created"}'
    with client() as ada:
        subscribe(ada, "orders:new")
        equal(server.http("POST", "/v1/relay/push", body, token())[0], 200)
        push = json.loads(ada.recv(timeout=5))
        equal(push, {"type": "push", **body})
        equal(server.http("POST", "/v1/relay/push", raw, token())[0], 200)
        equal(ada.recv(timeout=5),
              '{"type":"push","topic":"orders:new","event":"created","payload":{"total": 42.50}}')
    equal(server.http("POST", "/v1/relay/push", {**body, "topic": "empty"}, token())[0], 200)
    equal(server.http("POST", "/v1/relay/push", body)[0], 401)


def presence_follows_subscribe_unsubscribe_and_disconnect():
    """R-18, R-19, C-07, D-18"""
    def who():
        return sorted(member["meta"]["sub"] for member in presence("p")["members"])

    with client("ada") as ada:
        subscribe(ada, "p")
        with client("bob") as bob:
            subscribe(bob, "p")
            answer = presence("p")
            equal(list(answer), ["count", "members"])
            equal(answer["count"], 2)
            assert all(isinstance(it["conn_id"], int) and 0 < it["conn_id"]
                       and list(it) == ["conn_id", "meta"] for it in answer["members"]), answer
            equal(who(), ["ada", "bob"])
            say(ada, '{"type":"unsubscribe","topic":"p"}', '{"type":"unsubscribed","topic":"p"}')
            equal(who(), ["bob"])
        until([], who)
        equal(presence("p"), {"count": 0, "members": []})


def tenants_do_not_see_each_other():
    """B-04, D-06"""
    with client("ada", "one") as ada, client("eve", "two") as eve:
        subscribe(ada, "same")
        subscribe(eve, "same")
        ada.send('{"type":"message","topic":"same","event":"e","payload":1}')
        equal(ada.recv(timeout=5), '{"type":"push","topic":"same","event":"e","payload":1}')
        equal(server.http("POST", "/v1/relay/push",
                          {"topic": "same", "event": "e", "payload": 2}, token(ns="three"))[0], 200)
        silent(eve)
        equal(presence("same", ns="one")["count"], 1)
        equal(presence("same", ns="three")["count"], 0)


def messages_of_one_topic_keep_their_order():
    """D-22"""
    with client("ada") as ada, client("bob") as bob:
        subscribe(ada, "order")
        subscribe(bob, "order")
        for number in range(100):
            ada.send('{"type":"message","topic":"order","event":"n","payload":%d}' % number)
        for socket in (ada, bob):
            got = [json.loads(socket.recv(timeout=5))["payload"] for _ in range(100)]
            equal(got, list(range(100)))


def the_echo_mount_returns_text_and_binary():
    """R-04: one byte to 1 MiB, in one frame or in pieces"""
    with connect(f"ws://{server.address}/echo", compression=None, max_size=None) as raw:
        for size in (0, 1, 125, 126, 65_535, 65_536, 1 << 20):
            raw.send(b"\xa5" * size)
            equal(raw.recv(timeout=10), b"\xa5" * size)
            raw.send("ü" * size)
            equal(raw.recv(timeout=10), "ü" * size)
        raw.send(iter(["in ", "three ", "pieces"]))
        equal(raw.recv(timeout=5), "in three pieces")


def a_request_that_is_no_upgrade_is_an_http_error():
    """R-01: 400; RFC 6455 section 4.4: 426 for another version"""
    equal(server.http("GET", "/echo")[0], 400)
    head = (f"GET /echo HTTP/1.1\r\nHost: {server.address}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 12\r\n\r\n")
    answer = server.raw(head.encode())
    assert answer.startswith(b"HTTP/1.1 426 "), answer
    assert b"\r\nsec-websocket-version: 13\r\n" in answer.lower(), answer


def health_is_open_and_administration_is_not():
    """C-10, C-09"""
    equal(server.http("GET", "/healthz")[0], 200)
    equal(server.http("GET", "/readyz")[0], 200)
    assert server.http("GET", "/metrics")[0] in (401, 403)
    assert server.http("GET", "/metrics", bearer=token())[0] in (401, 403)
    status, text = server.http("GET", "/metrics", bearer=token(roles=["admin"]))
    equal(status, 200)
    assert b"# TYPE" in text, text[:200]
    equal(server.http("GET", "/v1/connections")[0], 401)
    with client("ada", "conns"):
        status, body = server.http("GET", "/v1/connections", bearer=token(ns="conns"))
        equal(status, 200)
        assert json.loads(body), body


def dev_prints_a_token_that_works():
    """C-20, C-21"""
    with Server(dev=True) as dev:
        printed = dev.printed_token()
        with connect(f"ws://{dev.address}/ws",
                     additional_headers={"Authorization": f"Bearer {printed}"}) as ada:
            subscribe(ada, "dev")


def two_shards_serve_the_same_topics():
    """D-22, D-24: every pair of connections meets, whatever shard it is on"""
    global server
    before = server
    with Server(shards=2) as server:
        try:
            a_message_reaches_every_subscriber_and_its_sender()
            messages_of_one_topic_keep_their_order()
            presence_follows_subscribe_unsubscribe_and_disconnect()
            sockets = [client(f"user{number}") for number in range(16)]
            for socket in sockets:
                subscribe(socket, "all")
            sockets[0].send('{"type":"message","topic":"all","event":"e","payload":1}')
            for socket in sockets:
                equal(socket.recv(timeout=5),
                      '{"type":"push","topic":"all","event":"e","payload":1}')
                socket.close()
        finally:
            server = before


def a_termination_drains():
    """C-23: close 1012, exit code 0, within 10 s"""
    with Server() as ending:
        with connect(f"ws://{ending.address}/echo") as raw:
            code, seconds = ending.terminate()
            try:
                raw.recv(timeout=5)
                raise AssertionError("a message instead of a close")
            except ConnectionClosed as closed:
                equal(closed.rcvd.code if closed.rcvd else None, 1012)
            equal(code, 0)
            assert seconds < 10, seconds


CHECKS = [
    a_message_reaches_every_subscriber_and_its_sender,
    a_payload_is_forwarded_as_its_bytes_came,
    ping_is_answered_by_pong,
    unsubscribe_ends_forwarding,
    who_is_not_subscribed_may_not_speak,
    a_second_subscribe_is_the_same_subscription,
    invalid_messages_get_an_error_and_the_socket_stays_open,
    the_51st_subscription_is_refused,
    without_a_good_token_the_upgrade_is_401,
    a_token_may_come_by_query_or_subprotocol,
    rest_pushes_to_whoever_listens_or_to_nobody,
    presence_follows_subscribe_unsubscribe_and_disconnect,
    tenants_do_not_see_each_other,
    messages_of_one_topic_keep_their_order,
    the_echo_mount_returns_text_and_binary,
    a_request_that_is_no_upgrade_is_an_http_error,
    health_is_open_and_administration_is_not,
    dev_prints_a_token_that_works,
    two_shards_serve_the_same_topics,
    a_termination_drains,
]

if __name__ == "__main__":
    with Server() as server:
        run_checks(CHECKS)
