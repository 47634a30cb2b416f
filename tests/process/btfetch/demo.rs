//! The demo, which is the product in one command.

use crate::world::{World, code, events};

#[test]
fn the_demo_runs_from_magnet_to_verified_file_and_leaves_nothing_behind() {
    let world = World::new(50, 1000);
    let tmp = world.path("tmp");
    std::fs::create_dir(&tmp).unwrap();
    let demo = world.run(world.command().env("TMPDIR", &tmp).args(["demo", "--json", "--size", "16"]));
    assert_eq!(code(demo.status), 0, "{}", String::from_utf8_lossy(&demo.stderr));
    let events = events(&demo);
    let steps: Vec<_> = events.iter().map(|event| event["step"].as_str().unwrap()).collect();
    let expected =
        ["dht", "file", "torrent", "seeder", "magnet", "lookup", "metadata", "download", "check", "done"];
    assert_eq!(steps, expected);
    let step = |name: &str| events.iter().find(|event| event["step"] == name).unwrap();
    assert!(step("dht")["nodes"].as_u64().unwrap() >= 20);
    assert_eq!(step("check")["sha256"], step("file")["sha256"]);
    assert!(step("magnet")["magnet"].as_str().unwrap().starts_with("magnet:?xt=urn:btih:"));
    assert_eq!(std::fs::read_dir(&tmp).unwrap().count(), 0, "temporary files are left");
}
