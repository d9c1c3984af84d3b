//! Guards, interceptors and filters: order, denial, what they may change.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;
use tidegate_macros::{gateway, injectable, messages};

use super::{Rig, block_on, caller, handshake};
use crate::gateway::context::{ExecutionContext, UpgradeContext, WsArgumentsHost};
use crate::gateway::filter::{Caught, ExceptionFilter};
use crate::gateway::guard::{MessageGuard, UpgradeGuard};
use crate::gateway::interceptor::{Interceptor, Next};
use crate::gateway::module::App;
use crate::gateway::reply::{Exception, ExceptionKind, WsReply};
use crate::proto::CloseCode;

/// What happened, in order.
#[derive(Default)]
struct Diary(Mutex<Vec<String>>);

impl Diary {
    fn note(&self, what: &str) {
        self.0.lock().push(what.to_owned());
    }
}

#[injectable]
struct NotBanned {
    #[inject]
    diary: Arc<Diary>,
}

impl UpgradeGuard for NotBanned {
    async fn can_upgrade(&self, context: &UpgradeContext<'_>) -> bool {
        self.diary.note("upgrade");
        !context.caller().has_role("banned") && context.header("x-colour") == Some("blue")
    }
}

impl MessageGuard for NotBanned {
    async fn can_activate(&self, context: &ExecutionContext<'_>) -> bool {
        self.diary.note("gateway guard");
        context.switch_to_ws().client().header("x-colour") == Some("blue")
    }
}

#[injectable]
struct Admin {
    #[inject]
    diary: Arc<Diary>,
}

impl MessageGuard for Admin {
    async fn can_activate(&self, context: &ExecutionContext<'_>) -> bool {
        self.diary.note("method guard");
        tokio::task::yield_now().await;
        context.client().caller().has_role("admin")
    }
}

#[injectable]
struct Outer {
    #[inject]
    diary: Arc<Diary>,
}

impl Interceptor for Outer {
    async fn intercept(&self, context: &ExecutionContext<'_>, next: Next<'_>) -> WsReply {
        self.diary.note("outer before");
        let reply = next.run().await;
        self.diary.note("outer after");
        context.client().emit("seen", &context.event()).unwrap();
        reply
    }
}

#[injectable]
struct Inner {
    #[inject]
    diary: Arc<Diary>,
}

impl Interceptor for Inner {
    async fn intercept(&self, _: &ExecutionContext<'_>, next: Next<'_>) -> WsReply {
        self.diary.note("inner before");
        let mut reply = next.run().await;
        self.diary.note("inner after");
        if let WsReply::Frame(body) = &mut reply
            && body.data() == b"1"
        {
            body.set_data(&"one").unwrap();
        }
        reply
    }
}

#[injectable]
struct Teapot;

impl ExceptionFilter for Teapot {
    fn catch(&self, exception: &Exception, host: &WsArgumentsHost<'_>) -> Caught {
        assert_eq!(host.event(), "fail");
        match exception.downcast_ref::<&str>() {
            Some(&"teapot") => Caught::replace(json!({"error": "short and stout", "code": 418})),
            Some(&"silent") => Caught::Swallow,
            Some(&"close") => Caught::Close {
                code: CloseCode::own(4418),
                reason: "short and stout".into(),
            },
            Some(&"panic") => panic!("a filter"),
            _ => Caught::Pass,
        }
    }
}

#[injectable]
struct Last;

impl ExceptionFilter for Last {
    fn catch(&self, exception: &Exception, _: &WsArgumentsHost<'_>) -> Caught {
        match exception.kind() {
            ExceptionKind::Panic => Caught::replace(json!({"error": "gateway's filter"})),
            _ => Caught::Pass,
        }
    }
}

#[gateway(path = "/l", guards(NotBanned), interceptors(Outer))]
#[use_filters(Last)]
struct Layered {
    #[inject]
    diary: Arc<Diary>,
}

#[messages]
impl Layered {
    #[subscribe_message("shout")]
    #[use_guards(Admin, NotBanned)]
    #[use_interceptors(Inner)]
    async fn shout(&self, number: u8) -> u8 {
        self.diary.note("handler");
        number
    }

    #[subscribe_message("fail")]
    #[use_filters(Teapot)]
    async fn fail(&self, how: String) -> Result<(), &'static str> {
        Err(match how.as_str() {
            "teapot" => "teapot",
            "silent" => "silent",
            "close" => "close",
            "panic" => "panic",
            "handler" => panic!("a handler"),
            _ => "plain failure",
        })
    }
}

fn rig() -> Rig {
    let mut app = App::new();
    app.provide(Diary::default()).gateway::<Layered>();
    Rig::new(app)
}

fn diary(rig: &Rig) -> Vec<String> {
    let diary = rig.program.container().get::<Diary>().unwrap();
    std::mem::take(&mut diary.0.lock())
}

/// D-10, D-14, P-11, P-12, P-17: each once, outside in, then inside out.
#[test]
fn layers_stand_around_a_handler_in_order() {
    let rig = rig();
    let peer = rig.connect("/l", "demo", &["admin"]);
    let answer = peer.ask("shout", "1");
    assert_eq!(
        answer,
        [
            r#"{"event":"seen","data":"shout"}"#,
            r#"{"event":"shout","data":"one"}"#
        ]
    );
    assert_eq!(
        diary(&rig),
        [
            "gateway guard",
            "method guard",
            "outer before",
            "inner before",
            "handler",
            "inner after",
            "outer after",
        ]
    );
}

/// X-05, M-17: denied before the payload is looked at.
#[test]
fn the_first_guard_that_says_no_ends_it() {
    let rig = rig();
    let peer = rig.connect("/l", "demo", &[]);
    let answer = peer.ask("shout", "{}");
    assert_eq!(
        answer,
        [r#"{"event":"shout","data":{"error":"forbidden"}}"#]
    );
    assert_eq!(diary(&rig), ["gateway guard", "method guard"]);
}

/// X-05: at the upgrade only those that guard upgrades are asked.
#[test]
fn an_upgrade_can_be_refused() {
    let rig = rig();
    let peer = rig.connect("/l", "demo", &[]);
    let upgrade = |roles: &[&str]| {
        let gateway = peer.gateway.clone();
        block_on(gateway.upgrade(caller("demo", roles), handshake("/l")))
    };
    assert!(upgrade(&[]));
    assert!(!upgrade(&["banned"]));
    assert_eq!(diary(&rig), ["upgrade", "upgrade"]);
}

/// P-18, D-14: replaced, swallowed, closed, passed on, and the filter's own panic.
#[test]
fn filters_decide_what_becomes_of_an_error() {
    let rig = rig();
    let peer = rig.connect("/l", "demo", &[]);
    let fail = |how: &str| peer.ask("fail", &format!("\"{how}\"")).pop().unwrap();
    let data = |data: &str| format!(r#"{{"event":"fail","data":{data}}}"#);
    assert_eq!(fail("plain"), data(r#"{"error":"plain failure"}"#));
    assert_eq!(
        fail("teapot"),
        data(r#"{"error":"short and stout","code":418}"#)
    );
    assert_eq!(fail("silent"), r#"{"event":"seen","data":"fail"}"#);
    assert_eq!(fail("close"), r#"{"event":"seen","data":"fail"}"#);
    assert_eq!(
        *rig.wire.closes.borrow(),
        [(1, 4418, "short and stout".to_owned())]
    );
    assert_eq!(fail("handler"), data(r#"{"error":"gateway's filter"}"#));
    assert_eq!(fail("panic"), data(r#"{"error":"internal"}"#));
}

#[gateway(path = "/strict", on_deny = "close", on_panic = "close")]
struct Strict;

#[messages]
impl Strict {
    #[subscribe_message("shout")]
    #[use_guards(Admin)]
    async fn shout(&self) {}

    #[subscribe_message("panic")]
    async fn panic(&self) {
        panic!("strict")
    }
}

/// D-11.
#[test]
fn a_strict_gateway_closes() {
    let mut app = App::new();
    app.provide(Diary::default()).gateway::<Strict>();
    let rig = Rig::new(app);
    let peer = rig.connect("/strict", "demo", &[]);
    assert!(peer.ask("shout", "null").is_empty());
    assert!(peer.ask("panic", "null").is_empty());
    let closes = rig.wire.closes.borrow();
    assert_eq!((closes[0].1, closes[1].1), (1008, 1011));
}
