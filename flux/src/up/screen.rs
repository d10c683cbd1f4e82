//! The live table: one line a role on a terminal, JSON lines when piped.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::status::Status;

/// The lines, in the order of the flow.
const ROLES: [&str; 4] = ["produce", "sink postgres", "sink s3", "sink snowpipe"];

pub(super) struct Screen {
    terminal: Option<(MultiProgress, BTreeMap<String, ProgressBar>)>,
}

impl Screen {
    pub(super) fn new(target: u64) -> Self {
        let terminal = std::io::stdout().is_terminal().then(|| {
            let screen = MultiProgress::new();
            let bars = ROLES.map(|role| (role.to_string(), bar(&screen, role, target))).into();
            (screen, bars)
        });
        Self { terminal }
    }

    pub(super) fn show(&self, status: &Status) {
        let Some((_, bars)) = &self.terminal else {
            let line = serde_json::to_string(status).expect("a status is plain data");
            // Nobody reads any more: that is no reason to stop the work.
            writeln!(std::io::stdout(), "{line}").ok();
            return;
        };
        let Some(bar) = bars.get(&status.role) else { return };
        bar.set_position(status.rows);
        let unit = if status.role == "produce" { "s" } else { "records" };
        bar.set_message(format!(
            "{:>9.0} rows/s  lag {:.0} {unit}  {}",
            status.rows_per_second, status.lag, status.health
        ));
    }

    /// Prints above the table.
    pub(super) fn pause(&self, print: impl FnOnce()) {
        match &self.terminal {
            Some((screen, _)) => screen.suspend(print),
            None => print(),
        }
    }

    pub(super) fn finish(&self) {
        if let Some((_, bars)) = &self.terminal {
            bars.values().for_each(ProgressBar::abandon);
        }
    }
}

fn bar(screen: &MultiProgress, role: &str, target: u64) -> ProgressBar {
    let template = "{prefix:<14} {bar:24} {human_pos:>11} rows  {msg}";
    let style = ProgressStyle::with_template(template).expect("the template is ours");
    let bar = screen.add(ProgressBar::new(target).with_style(style));
    bar.set_prefix(role.to_string());
    bar
}
