//! The data directory of a server: whose it is, what of it can be read, and who has it. Knows the
//! folder of a partition as an operator sees it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::durable::{Durable as _, plan, serve};
use crate::harness::{Site, both_shards, eventually};

fn folders(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = paths.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

fn files(data: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let all = folders(data).into_iter().flat_map(|folder| {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().path())
    });
    let mut files: Vec<_> = all
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Topics enough that each partition has some, with one message in each.
fn fill(site: &Site) -> Vec<String> {
    let mut ada = site.durable("demo");
    let make = |number| {
        let id = site.topic("demo", &format!("topic-{number}"));
        ada.publish(&id, "1", 1);
        id
    };
    (0..24).map(make).collect()
}

fn count(site: &Site) -> usize {
    let listed = site.rest_json("demo", "GET", "/v1/topics?limit=100", "");
    listed["topics"].as_array().unwrap().len()
}

both_shards! {
    /// L2, L11: refused with one line, nothing changed, and all there again with what was there
    fn a_directory_that_is_not_its_own_is_refused(shards) {
        let (data, site) = serve(shards);
        let topics = fill(&site);
        site.stop();
        let (_other, fresh) = {
            let (other, site) = serve(shards);
            site.stop();
            let meta = fs::read(other.path().join("meta")).unwrap();
            (other, meta)
        };
        let own = fs::read(data.path().join("meta")).unwrap();
        let before = files(data.path());
        fs::write(data.path().join("meta"), fresh).unwrap();
        let error = plan(shards, data.path()).try_start().expect_err("foreign").to_string();
        assert!(error.contains("another data directory"), "{error}");
        assert!(!error.contains('\n'), "{error}");
        assert_eq!(files(data.path()), before);
        fs::write(data.path().join("meta"), own).unwrap();

        let away = data.path().join("away");
        let folder = folders(data.path())[1].clone();
        fs::rename(&folder, &away).unwrap();
        let error = plan(shards, data.path()).try_start().expect_err("missing").to_string();
        assert!(error.contains("partition-0001 is missing"), "{error}");
        assert!(!folder.exists());
        fs::rename(&away, &folder).unwrap();

        let site = plan(shards, data.path()).start();
        assert_eq!(count(&site), topics.len());
        let mut ada = site.durable("demo");
        for topic in &topics {
            ada.publish(topic, "2", 2);
        }
    }

    /// L16: a sector that cannot be read costs its partition, and nobody is told that what
    /// stands there does not exist
    fn what_cannot_be_read_costs_one_partition(shards) {
        let (data, site) = serve(shards);
        let topics = fill(&site);
        site.stop();
        // Reading where the process has no memory gives EIO.
        let folder = folders(data.path())[2].clone();
        let segment = folder.join("0000000000000001.segment");
        let aside = data.path().join("aside");
        fs::rename(&segment, &aside).unwrap();
        std::os::unix::fs::symlink("/proc/self/mem", &segment).unwrap();
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|kind| kind == "checkpoint") {
                fs::remove_file(path).unwrap();
            }
        }
        let site = plan(shards, data.path()).start();
        eventually("the failure is told", || {
            site.rest("demo", "GET", "/readyz", "").status == 503
        });
        let mut lost = 0;
        for topic in &topics {
            let answer = site.rest("demo", "GET", &format!("/v1/topics/{topic}"), "");
            match answer.status {
                200 => site.durable("demo").publish(topic, "2", 2),
                503 => lost += 1,
                _ => panic!("{answer:?}"),
            }
        }
        assert!((1..topics.len()).contains(&lost), "{lost} of {}", topics.len());
        assert_eq!(count(&site), topics.len() - lost);
        site.stop();
        fs::remove_file(&segment).unwrap();
        fs::rename(&aside, &segment).unwrap();
        let site = plan(shards, data.path()).start();
        assert_eq!(count(&site), topics.len(), "nothing was deleted");
    }

    /// L18: a server that is dropped has stopped, and until then nobody else gets its directory
    fn a_server_that_is_dropped_stops(shards) {
        let data = tempfile::tempdir().unwrap();
        let server = plan(shards, data.path()).try_start().unwrap();
        let address = server.address();
        let again = plan(shards, data.path()).try_start().expect_err("it is locked");
        assert!(again.to_string().contains("is locked"), "{again}");
        drop(server);
        assert!(std::net::TcpStream::connect(address).is_err(), "it still listens");
        let site = plan(shards, data.path()).start();
        let topic = site.topic("demo", "t");
        site.durable("demo").publish(&topic, "1", 1);
    }
}
