//! Relay topics over REST, against one home that is here.

use serde_json::json;

use crate::broker::pattern::Patterns;
use crate::broker::relay::{Home, HomeLimits, Unhandled};
use crate::gateway::relay::{HomeJob, Relay, RelayLink};
use crate::gateway::send::SendError;

use super::*;

/// what is missing is named.
#[test]
fn without_a_relay_mount_a_push_says_so() {
    let refused = rig()
        .post(
            "/v1/relay/push",
            "{\"topic\":\"t\",\"event\":\"e\",\"payload\":1}",
        )
        .problem(404)
        .json();
    assert!(
        refused["detail"]
            .as_str()
            .unwrap()
            .contains("no relay mount"),
        "{refused}"
    );
}

/// A home of all topics, here and at once.
struct OneHome(Mutex<Home>);

impl RelayLink for OneHome {
    fn at_home(&self, _: &Tenant, _: &str, job: HomeJob) -> Result<(), SendError> {
        job(&mut self.0.lock());
        Ok(())
    }

    fn at_every_home(&self, job: &dyn Fn() -> HomeJob) -> Result<(), SendError> {
        job()(&mut self.0.lock());
        Ok(())
    }

    fn next_conn_id(&self) -> u64 {
        0
    }

    fn is_shared(&self) -> bool {
        false
    }
}

/// C-06, C-07, R-07: nobody subscribed is no error, and the form type of curl does not matter.
#[test]
fn a_push_reaches_the_home_of_its_topic() {
    let mut rig = rig();
    let limits = HomeLimits {
        handler_queue_max: 1,
        unhandled: Unhandled::Broadcast,
        topic_capacity: 1,
        last_bytes_max: 0,
    };
    let home = OneHome(Mutex::new(Home::new(
        Arc::new(Patterns::default()),
        limits,
        (0, 1),
    )));
    let relay = Relay::new(Some(Arc::new(home)));
    rig.router = rig.router.layer(Extension(relay));
    let pushed = rig.post(
        "/v1/relay/push",
        "{\"topic\":\"t\",\"event\":\"e\",\"payload\":42.50}",
    );
    assert_eq!(
        (pushed.status, pushed.text.as_str()),
        (200, "{\"accepted\":0}")
    );
    assert_eq!(
        rig.post("/v1/relay/push", "{\"topic\":\"t\",\"event\":\"e\"}")
            .status,
        200
    );
    let present = rig
        .get("/v1/relay/presence?topic=t", &token("demo", &[]))
        .json();
    assert_eq!(present, json!({"count": 0, "members": []}));
}
