//! `btdht config`: the merged settings and where each value came from.

use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::line;

/// Print the settings and their origins
#[derive(clap::Args)]
#[command(after_help = "\
What is printed is a valid bootstrap.toml.

Example: BTDHT_STORE_MEMORY='128 MiB' btdht config")]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args, context: &Context) -> Result<(), Failure> {
    let settings = &context.settings;
    if context.flags.json {
        for (key, value, origin) in settings.list() {
            line(
                &json!({"event": "setting", "key": key, "value": value, "origin": origin.to_string()})
                    .to_string(),
            )?;
        }
        let origin = settings.origin("router").to_string();
        for router in &settings.routers {
            line(
                &json!({"event": "setting", "key": "router", "value": router, "origin": origin}).to_string(),
            )?;
        }
        return Ok(());
    }
    let mut section = "";
    for (key, value, origin) in settings.list() {
        let (new, name) = key.split_once('.').unwrap_or(("", key));
        if new != section {
            line(&format!("{}[{new}]", if section.is_empty() { "" } else { "\n" }))?;
            section = new;
        }
        line(&format!("{:<48}# {origin}", format!("{name} = {value}")))?;
    }
    line(&format!("\n# routers: {}", settings.origin("router")))?;
    for router in &settings.routers {
        let (host, port) = router.rsplit_once(':').unwrap_or((router, "6881"));
        let host = host.trim_start_matches('[').trim_end_matches(']');
        line(&format!("[[router]]\nhost = {}\nport = {port}", toml::Value::from(host)))?;
    }
    Ok(())
}
