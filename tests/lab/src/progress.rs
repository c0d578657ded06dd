//! What a person sees while a peer is built: its name and the seconds, once at the end where there is no terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// One build that goes on.
pub(crate) struct Building {
    name: &'static str,
    start: Instant,
    bar: ProgressBar,
}

impl Building {
    /// Says what is being built; on a terminal the seconds count up.
    pub(crate) fn start(name: &'static str) -> Self {
        let bar = ProgressBar::new_spinner();
        let style = ProgressStyle::with_template("building {msg} … {elapsed}").expect("the template is well-formed");
        bar.set_style(style);
        bar.set_message(name);
        bar.enable_steady_tick(Duration::from_secs(1));
        if bar.is_hidden() {
            eprintln!("building {name} …");
        }
        Self { name, start: Instant::now(), bar }
    }

    /// Says how long it took.
    pub(crate) fn done(self) {
        self.bar.finish_and_clear();
        eprintln!("built {} in {} s", self.name, self.start.elapsed().as_secs());
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        self.bar.finish_and_clear(); // a failed build leaves no spinner behind
    }
}
