//! Raw sockets in the hands of handlers: receiving, sending, both at once, closing, panicking, and
//! what happens when one end does not keep up. Knows messages; no dialect.

use std::cell::RefCell;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tidegate::gateway::socket::echo;
use tidegate::metrics::{Counter, Gauge};
use tidegate::{CurrentUser, Message, State, WebSocket};
use tokio::sync::{Notify, Semaphore};
use tungstenite::Message as Wired;

use crate::harness::http::{ask, request};
use crate::harness::wire::frame;
use crate::harness::{
    Client, Opcode, Plan, Wire, both_shards, client, eventually, is_alone, resident_bytes, token,
};

/// As the example `echo` has it.
async fn echo_until_close(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if message == Message::from("close") {
            return socket.close_with(tidegate::CloseCode::Normal, "bye").await;
        }
        if socket.send(message).await.is_err() {
            return;
        }
    }
}

both_shards! {
    /// EXAMPLES `echo`
    fn text_and_binary_come_back(shards) {
        let site = Plan::new(shards).raw("/raw", echo_until_close)
            .start();
        let mut client = Client::connect_public(site.address, "/raw");
        client.ask("grüße", "grüße");
        client.ask("", "");
        for bytes in [vec![], vec![0, 159, 146, 150], vec![7; 65_536]] {
            client.send_message(Wired::binary(bytes.clone()));
            assert_eq!(client.receive_message(), Wired::binary(bytes));
        }
        client.send("close");
        client.expect_close(1000, "bye");
        let plain = ask(site.address, &request("GET", "/raw", None, ""));
        assert_eq!(plain.status, 400);
    }

    /// a token is wanted unless the route says otherwise, and the handler sees whose it is
    fn handlers_know_their_caller(shards) {
        async fn who(mut socket: WebSocket, user: CurrentUser) {
            let text = format!("{} {} {:?}", user.tenant, user.id, socket.peer().is_some());
            let _ = socket.send(text.into()).await;
        }
        let site = Plan::new(shards).with(|builder| builder.raw("/raw", who)).start();
        assert_eq!(ask(site.address, &request("GET", "/raw", None, "")).status, 400);
        let upgrade = crate::harness::wire::upgrade_request("/raw", &[]);
        assert_eq!(ask(site.address, &upgrade).status, 401);
        let mut client = Client::connect(site.address, "/raw", &token("demo", "ada"));
        client.expect("demo ada true");
        client.expect_close(1000, "");
    }

    /// the two halves work by themselves
    fn halves_work_apart(shards) {
        async fn count_and_tick(socket: WebSocket) {
            let (sender, mut receiver) = socket.split();
            let ticks = sender.clone();
            let ticking = tokio::task::spawn_local(async move {
                for tick in 0..3 {
                    let _ = ticks.send(format!("tick {tick}").into()).await;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
            let mut count = 0;
            while let Some(Ok(message)) = receiver.recv().await {
                count += 1;
                if message.as_text() == Some("end") {
                    break;
                }
            }
            drop(ticking.await);
            let _ = sender.send(format!("got {count}").into()).await;
            sender.close().await;
            // The peer's answer to the close ends the other half.
            assert!(receiver.recv().await.is_none());
        }
        let site = Plan::new(shards).raw("/raw", count_and_tick)
            .start();
        let mut client = Client::connect_public(site.address, "/raw");
        for tick in 0..3 {
            client.expect(&format!("tick {tick}"));
        }
        client.send("one");
        client.send("end");
        client.expect("got 2");
        client.expect_close(1000, "");
    }

    /// `recv` gives `None` when the peer closes or vanishes, and every handler ends
    fn handlers_end_with_their_peer(shards) {
        async fn watch(mut socket: WebSocket, State(ended): State<Arc<AtomicUsize>>) {
            while let Some(message) = socket.recv().await {
                drop(message);
            }
            assert!(socket.send("too late".into()).await.is_err());
            ended.fetch_add(1, Ordering::SeqCst);
        }
        let ended = Arc::new(AtomicUsize::new(0));
        let site = Plan::new(shards)
            .provide(Arc::clone(&ended))
            .raw("/raw", watch)
            .start();
        Client::connect_public(site.address, "/raw").close();
        Client::connect_public(site.address, "/raw").vanish();
        drop(Wire::upgraded(site.address, "/raw"));
        let mut broken = Wire::upgraded(site.address, "/raw");
        broken.send(Opcode(3), "");
        eventually("four handlers end", || ended.load(Ordering::SeqCst) == 4);
    }

    /// A panic is caught, counted, told to the peer, and costs nobody else anything
    fn a_panic_ends_its_own_connection(shards) {
        async fn fail(mut socket: WebSocket) {
            let message = socket.recv().await.unwrap().unwrap();
            assert_ne!(message.as_text(), Some("panic"), "as the peer wished");
            socket.send(message).await.unwrap();
        }
        let site = Plan::new(shards).raw("/raw", fail)
            .start();
        let mut neighbour = Client::connect_public(site.address, "/raw");
        let mut client = Client::connect_public(site.address, "/raw");
        client.send("panic");
        client.expect_close(1011, "internal");
        assert_eq!(site.count(Counter::HandlerPanics), 1);
        neighbour.ask("still here", "still here");
    }

    /// A send waits while the peer does not read, and goes on when it does
    fn a_send_waits_for_the_peer(shards) {
        const MESSAGES: usize = 400;
        async fn pour(mut socket: WebSocket, State(sent): State<Arc<AtomicUsize>>) {
            let text = "x".repeat(60_000);
            for _ in 0..MESSAGES {
                socket.send(text.as_str().into()).await.unwrap();
                sent.fetch_add(1, Ordering::SeqCst);
            }
        }
        let sent = Arc::new(AtomicUsize::new(0));
        let site = Plan::new(shards)
            .provide(Arc::clone(&sent))
            .raw("/raw", pour)
            .start();
        let before = resident_bytes();
        let mut slow = Wire::over(client::connected_with_small_buffer(site.address));
        slow.upgrade("/raw");
        // It pours until the kernel and the outbox are full, and then no more.
        let mut last = 0;
        eventually("the handler waits", || {
            std::thread::sleep(Duration::from_millis(50));
            let now = sent.load(Ordering::SeqCst);
            std::mem::replace(&mut last, now) == now && now != 0
        });
        assert!(last < MESSAGES / 2, "{last} were taken without being read");
        assert!(resident_bytes().saturating_sub(before) < 64 << 20);
        for _ in 0..MESSAGES {
            let (opcode, payload) = slow.read_frame();
            assert_eq!((opcode, payload.len()), (Opcode::TEXT, 60_000));
        }
        slow.expect_close(1000);
    }

    /// RELIABILITY P9, P11: a handler that never reads beside a client that floods it; what is not
    /// taken waits with the peer, and neighbours are served
    fn a_flood_into_a_deaf_handler_stays_bounded(shards) {
        async fn deaf(socket: WebSocket) {
            std::future::pending::<()>().await;
            drop(socket);
        }
        if !is_alone() {
            return;
        }
        let site = Plan::new(shards)
            .raw("/raw", echo)
            .raw("/deaf", deaf)
            .start();
        let before = resident_bytes();
        let flood = frame(true, Opcode::BINARY, &vec![7; 60_000]);
        std::thread::scope(|scope| {
            let flooders = [(); 4].map(|()| {
                scope.spawn(|| pour(Wire::upgraded(site.address, "/deaf"), &flood))
            });
            let mut neighbours = [(); 2].map(|()| Client::connect_public(site.address, "/raw"));
            for round in 0..500 {
                for neighbour in &mut neighbours {
                    neighbour.ask(&round.to_string(), &round.to_string());
                }
            }
            for flooder in flooders.map(|flooder| flooder.join().unwrap()) {
                let (_still_open, poured) = flooder;
                assert!(poured < 64 << 20, "{poured} bytes were taken and not read");
            }
        });
        assert!(4 <= site.count(Counter::InboxPauses), "inboxes were full");
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 96 << 20, "{grown} bytes for what nobody read");
    }

    /// A handler that is busy for longer than a pong may take is not the peer's fault
    fn a_busy_handler_does_not_kill_its_peer(shards) {
        async fn busy(mut socket: WebSocket, State(go_on): State<Arc<Notify>>) {
            go_on.notified().await;
            let mut bytes = 0;
            while let Some(Ok(message)) = socket.recv().await {
                if message.is_text() {
                    break;
                }
                bytes += message.as_bytes().len();
            }
            let _ = socket.send(format!("{bytes}").into()).await;
        }
        let go_on = Arc::new(Notify::new());
        let site = Plan::new(shards)
            .limits(|limits| {
                limits.ping_interval_ms = 50;
                limits.pong_timeout_ms = 50;
                limits.inbox_bytes_max = 100_000;
            })
            .provide(Arc::clone(&go_on))
            .raw("/raw", busy)
            .start();
        let mut wire = Wire::upgraded(site.address, "/raw");
        for _ in 0..10 {
            wire.send(Opcode::BINARY, vec![7; 60_000]);
        }
        wire.send(Opcode::TEXT, "that was all");
        // Pings come all the while; an answer would wait behind what the handler has not taken.
        for _ in 0..6 {
            wire.expect_frame(Opcode::PING, "");
        }
        go_on.notify_one();
        loop {
            match wire.read_frame() {
                (Opcode::PING, _) => {}
                other => break assert_eq!(other, (Opcode::TEXT, b"600000".to_vec())),
            }
        }
        wire.expect_close(1000);
    }

    /// A message is handed over in order and once, whatever the sizes
    fn nothing_is_lost_under_back_pressure(shards) {
        async fn slow(mut socket: WebSocket, State(seen): State<Arc<Seen>>) {
            while let Some(Ok(message)) = socket.recv().await {
                tokio::task::yield_now().await;
                seen.0.lock().push(message.as_bytes().len());
            }
        }
        struct Seen(parking_lot::Mutex<Vec<usize>>);
        let seen = Arc::new(Seen(parking_lot::Mutex::default()));
        let site = Plan::new(shards)
            .limits(|limits| limits.inbox_bytes_max = 8_192)
            .provide(Arc::clone(&seen))
            .raw("/raw", slow)
            .start();
        let mut client = Client::connect_public(site.address, "/raw");
        let sizes: Vec<usize> = (0..600).map(|number| number * 37 % 9_000).collect();
        for size in &sizes {
            client.send_message(Wired::binary(vec![1; *size]));
        }
        client.close();
        eventually("all are seen", || seen.0.lock().len() == sizes.len());
        assert_eq!(*seen.0.lock(), sizes);
        assert_ne!(site.count(Counter::InboxPauses), 0);
    }

    /// What waits for handlers is counted as it comes and goes, and with handlers that take none
    fn what_waits_for_a_handler_is_counted(shards) {
        async fn late(mut socket: WebSocket, State(gate): State<Arc<Semaphore>>) {
            gate.acquire().await.unwrap().forget();
            let first = socket.recv().await;
            if !matches!(&first, Some(Ok(message)) if message.as_bytes() == b"leave") {
                while let Some(Ok(_)) = socket.recv().await {}
            }
        }
        let gate = Arc::new(Semaphore::new(0));
        let site = Plan::new(shards).provide(Arc::clone(&gate)).raw("/raw", late).start();
        let waiting = || (site.gauge(Gauge::InboxMessages), site.gauge(Gauge::InboxBytes));
        let mut clients: Vec<_> = (0..2).map(|_| Client::connect_public(site.address, "/raw")).collect();
        for client in &mut clients {
            for text in ["leave", "b", "c"] {
                client.send_message(Wired::text(text));
            }
        }
        eventually("six wait", || waiting().0 == 6 && 14 < waiting().1);
        gate.add_permits(2);
        eventually("none waits", || waiting() == (0, 0));
        let mut reader = Client::connect_public(site.address, "/raw");
        reader.send_message(Wired::text("a"));
        eventually("one waits", || waiting().0 == 1);
        gate.add_permits(1);
        eventually("none waits again", || waiting() == (0, 0));
    }
}

/// Writes `bytes` again and again until the other side has taken nothing for a while, or far too
/// much; how much it took.
fn pour(wire: Wire, bytes: &[u8]) -> (Wire, usize) {
    const REFUSALS: usize = 5;
    let patience = Some(Duration::from_millis(50));
    wire.stream().set_write_timeout(patience).unwrap();
    let (mut poured, mut refused) = (0, 0);
    while refused < REFUSALS && poured < 64 << 20 {
        match wire.stream().write(&bytes[poured % bytes.len()..]) {
            Ok(count) => (poured, refused) = (poured + count, 0),
            Err(_) => refused += 1,
        }
    }
    (wire, poured)
}

/// A handler stays on its core, so it may hold what is not `Send`.
#[test]
fn handlers_need_not_be_send() {
    async fn local(mut socket: WebSocket) {
        let texts = std::rc::Rc::new(RefCell::new(Vec::new()));
        while let Some(Ok(message)) = socket.recv().await {
            texts
                .borrow_mut()
                .push(message.as_text().unwrap().to_owned());
            let joined = texts.borrow().join("+");
            socket.send(joined.into()).await.unwrap();
        }
    }
    let site = Plan::new(1).raw("/raw", local).start();
    let mut client = Client::connect_public(site.address, "/raw");
    client.ask("a", "a");
    client.ask("b", "a+b");
}

both_shards! {
    /// What the socket takes only a part of goes on at once, not when the shard wakes for another reason.
    fn the_rest_of_a_long_send_does_not_wait(shards) {
        let site = Plan::new(shards)
            .raw("/long", echo)
            .limits(|limits| {
                limits.message_bytes_max = 4 << 20;
                limits.frame_bytes_max = 4 << 20;
            })
            .start();
        let mut client = Client::connect_public(site.address, "/long");
        let began = Instant::now();
        let long = "x".repeat(2 << 20);
        for _ in 0..3 {
            client.ask(&long, &long);
        }
        let took = began.elapsed();
        assert!(took < Duration::from_secs(4), "{took:?}");
    }
}
