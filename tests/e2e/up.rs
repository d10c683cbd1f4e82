//! `flux up` as a newcomer runs it.

use std::{path::Path, process::Command};

fn up(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_flux"))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .args(["up", "--data-dir"])
        .arg(folder)
        .args(arguments)
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "flux up {}: {text}", arguments.join(" "));
    text
}

/// Places of the verdict's table that have 67,200 rows and nothing else.
fn clean_places(text: &str) -> usize {
    let clean = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        matches!(words[..], [_, "readings", "67,200", "67,200", "0", "0", "0", "0", "0"])
    };
    text.lines().filter(clean).count()
}

#[test]
fn up_back_fills_proves_goes_live_and_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let first = up(folder.path(), &["--for", "1"]);
    assert_eq!(clean_places(&first), 4, "{first}");
    assert!(first.contains("PROVEN") && first.contains("still going"), "{first}");
    let run = |text: &str| text.lines().find(|line| line.starts_with("run ")).map(str::to_string);
    let second = up(folder.path(), &["--for", "1"]);
    assert_eq!(clean_places(&second), 4, "{second}");
    assert_eq!(run(&first), run(&second), "a second up resumes the run");
    let third = up(folder.path(), &["--once", "--fresh"]);
    assert_eq!(clean_places(&third), 4, "{third}");
    assert!(third.contains("finished"), "{third}");
    assert_ne!(run(&first), run(&third), "--fresh starts over");
}
