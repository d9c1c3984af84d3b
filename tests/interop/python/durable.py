"""Durable topics by Python's `websockets`: frames byte for byte, REST beside them, and what is
there after a disconnect and after a restart of the server.
"""

import json
import sys
from pathlib import Path

from websockets.sync.client import connect

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import Server, equal, run_checks, token, until  # noqa: E402

server = None


def client(sub="ada", ns="demo", **options):
    headers = {"Authorization": f"Bearer {token(sub, ns)}"}
    return connect(f"ws://{server.address}/v1/ws", additional_headers=headers, compression=None,
                   max_size=None, **options)


def say(socket, text, answer):
    socket.send(text)
    equal(socket.recv(timeout=5), answer)


def ask(socket, **request):
    socket.send(json.dumps(request))
    return json.loads(socket.recv(timeout=5))


def rest(method, path, body=None, status=200, ns="demo"):
    got, answer = server.http(method, path, body, bearer=token("ada", ns))
    equal(got, status)
    return json.loads(answer) if answer else None


def topic(name):
    status, answer = server.http("POST", "/v1/topics", {"name": name}, bearer=token())
    assert status in (200, 201), (status, answer)
    return json.loads(answer)["id"]


def publish(socket, id, payload, seq):
    say(socket, '{"type":"publish","topic":"%s","payload":%s,"ref":"r%d"}' % (id, payload, seq),
        '{"type":"pub_ack","topic":"%s","seq":%d,"ref":"r%d"}' % (id, seq, seq))


def message(socket, id, payload, seq):
    equal(socket.recv(timeout=5),
          '{"type":"message","topic":"%s","seq":%d,"payload":%s}' % (id, seq, payload))


def ack(socket, id, name, seq):
    say(socket, '{"type":"ack","topic":"%s","sub_name":"%s","seq":%d,"ref":1}' % (id, name, seq),
        '{"type":"acked","topic":"%s","sub_name":"%s","seq":%d,"ref":1}' % (id, name, seq))


def a_topic_is_made_once():
    """B-07, D-25"""
    made = rest("POST", "/v1/topics", {"name": "once"}, status=201)
    equal(rest("POST", "/v1/topics", {"name": "once"}), made)
    equal((made["ns"], made["first_seq"], made["last_seq"]), ("demo", 1, 0))


def what_is_not_acked_comes_again():
    """B-09 to B-12, B-16, D-27, D-41"""
    id = topic("resume")
    payloads = ["42.50", '{"a" : 1}', '"\\u00fc\\/"', "123456789012345678901234567890"]
    with client() as ada:
        for seq, payload in enumerate(payloads, 1):
            publish(ada, id, payload, seq)
        opened = ask(ada, type="subscribe", topic=id, sub_name="A", from_seq=0)
        equal((opened["type"], opened["next_seq"], opened["resumed"]), ("subscribed", 1, False))
        for seq, payload in enumerate(payloads, 1):
            message(ada, id, payload, seq)
        ack(ada, id, "A", 2)
    with client() as ada:
        opened = ask(ada, type="subscribe", topic=id, sub_name="A", from_seq=0)
        equal((opened["cursor"], opened["next_seq"], opened["resumed"]), (2, 3, True))
        for seq in (3, 4):
            message(ada, id, payloads[seq - 1], seq)
        publish_and_message(ada, id)


def publish_and_message(socket, id):
    """The ack and the message of one publish on one connection come in either order."""
    socket.send('{"type":"publish","topic":"%s","payload":5}' % id)
    got = sorted(socket.recv(timeout=5) for _ in range(2))
    equal(got, ['{"type":"message","topic":"%s","seq":5,"payload":5}' % id,
                '{"type":"pub_ack","topic":"%s","seq":5}' % id])


def a_key_publishes_once():
    """D-27"""
    id = topic("keys")
    frame = '{"type":"publish","topic":"%s","payload":%d,"idempotency_key":"k"}'
    with client() as ada:
        say(ada, frame % (id, 1), '{"type":"pub_ack","topic":"%s","seq":1}' % id)
        say(ada, frame % (id, 1), '{"type":"pub_ack","topic":"%s","seq":1,"duplicate":true}' % id)
        ada.send(frame % (id, 2))
        equal(json.loads(ada.recv(timeout=5))["code"], "idempotency_conflict")


def messages_over_rest():
    """C-03, C-04, C-05"""
    id = topic("rest")
    path = f"/v1/topics/{id}/messages"
    equal(rest("POST", path, {"payload": 1}), {"topic": id, "seq": 1})
    equal(rest("POST", path, [{"payload": 2}, {"payload": 3}]),
          {"topic": id, "first_seq": 2, "last_seq": 3})
    read = rest("GET", f"{path}?from_seq=2&limit=1")
    equal([(one["seq"], one["payload"]) for one in read["messages"]], [(2, 2)])
    with client() as ada:
        opened = ask(ada, type="subscribe", topic=id, sub_name="A")
    subscription = f"/v1/subscriptions/{opened['subscription_id']}"
    until(False, lambda: rest("GET", subscription)["attached"])
    equal(rest("PATCH", subscription, {"from_seq": 2})["cursor"], 1)
    rest("DELETE", subscription, status=204)
    rest("DELETE", subscription, status=404)


def a_second_connection_takes_over():
    """D-36"""
    id = topic("takeover")
    with client("ada") as ada, client("bob") as bob:
        for socket in (ada, bob):
            equal(ask(socket, type="subscribe", topic=id, sub_name="A")["type"], "subscribed")
        equal(json.loads(ada.recv(timeout=5))["reason"], "taken_over")


def another_tenant_sees_nothing():
    """B-05, B-19: a foreign id and an unknown id are answered alike"""
    own, unknown = topic("own"), "018bcfe5-6800-7000-a442-8b7b22409730"
    with client("eve", "other") as eve:
        answers = [ask(eve, type="publish", topic=id, payload=1) for id in (own, unknown)]
    for answer, id in zip(answers, (own, unknown)):
        equal(answer, {"type": "error", "message": "unknown topic", "code": "unknown_topic",
                       "topic": id})
    equal(rest("GET", f"/v1/topics/{own}", status=404, ns="other"),
          rest("GET", f"/v1/topics/{unknown}", status=404, ns="other"))


def a_restart_keeps_everything():
    """B-17: the last check, for it starts the server anew"""
    id = topic("restart")
    with client() as ada:
        for seq in (1, 2, 3):
            publish(ada, id, str(seq), seq)
        ask(ada, type="subscribe", topic=id, sub_name="A", from_seq=0)
        for seq in (1, 2, 3):
            message(ada, id, str(seq), seq)
        ack(ada, id, "A", 1)
    server.restart()
    equal(topic("restart"), id)
    with client() as ada:
        opened = ask(ada, type="subscribe", topic=id, sub_name="A")
        equal((opened["cursor"], opened["last_seq"]), (1, 3))
        for seq in (2, 3):
            message(ada, id, str(seq), seq)


if __name__ == "__main__":
    with Server(shards=2) as server:
        run_checks([
            a_topic_is_made_once, what_is_not_acked_comes_again, a_key_publishes_once,
            messages_over_rest, a_second_connection_takes_over, another_tenant_sees_nothing,
            a_restart_keeps_everything,
        ])
