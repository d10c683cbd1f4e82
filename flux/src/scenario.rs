//! Scenario files: those that come with Flux, and a user's own.

use flux_generator::scenario::Scenario;

use crate::roles::Usage;

/// Those that come with Flux.
const SHIPPED: [(&str, &str); 5] = [
    ("normal", include_str!("../../scenarios/normal.toml")),
    ("summer-storm", include_str!("../../scenarios/summer-storm.toml")),
    ("hurricane", include_str!("../../scenarios/hurricane.toml")),
    ("comms-outage", include_str!("../../scenarios/comms-outage.toml")),
    ("cascade", include_str!("../../scenarios/cascade.toml")),
];

/// The scenario of this name, or in this file.
pub(crate) fn load(name: &str) -> Result<Scenario, Usage> {
    let shipped = SHIPPED.iter().find(|(shipped, _)| *shipped == name);
    let text = match shipped {
        Some((_, text)) => (*text).to_string(),
        None => std::fs::read_to_string(name).map_err(|error| {
            let names: Vec<_> = SHIPPED.iter().map(|(name, _)| *name).collect();
            Usage(format!("--scenario {name}: {error}; use a TOML file, or one of {}", names.join(", ")))
        })?,
    };
    // The error names line, column and field.
    let scenario: Scenario = toml::from_str(&text).map_err(|error| Usage(format!("--scenario {name}: {error}")))?;
    let checked = scenario.happenings().check();
    checked.map_err(|(field, value, rule)| {
        let line = line_of(&text, &field);
        Usage(format!("--scenario {name}{line}: {field} is {value}; {rule}"))
    })?;
    Ok(scenario)
}

/// The line that a field such as `storm[1].fraction` stands on.
fn line_of(text: &str, field: &str) -> String {
    let (table, name) = field.rsplit_once('.').unwrap_or(("", field));
    let (table, index) = table.split_once('[').unwrap_or((table, "0]"));
    let index: usize = index.trim_end_matches(']').parse().unwrap_or(0);
    let header = format!("[[{table}]]");
    let starts = text.lines().enumerate().filter(|(_, line)| line.trim() == header).map(|(number, _)| number + 1);
    let start = if table.is_empty() { Some(0) } else { starts.clone().nth(index) };
    let found = start.and_then(|start| {
        let lines = text.lines().enumerate().skip(start);
        lines.take_while(|(_, line)| !line.starts_with("[[")).find(|(_, line)| line.trim_start().starts_with(name))
    });
    found.map_or_else(String::new, |(number, _)| format!(" line {}", number + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_scenario_is_one_and_has_its_own_name() {
        for (name, _) in SHIPPED {
            assert_eq!(load(name).unwrap().name, name);
        }
    }

    #[test]
    fn a_wrong_field_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.toml");
        let load = |text: &str| {
            std::fs::write(&path, text).unwrap();
            load(path.to_str().unwrap()).unwrap_err().0
        };
        let storm = "name = \"own\"\n[[storm]]\nstart = \"1d\"\nfraction = 2.0\nrestoration_hours = 4.0\n";
        assert!(load(storm).contains("own.toml line 4: storm[0].fraction is 2; use 0 to 1"), "{}", load(storm));
        let unknown = load("name = \"own\"\nwind = 3\n");
        assert!(unknown.contains("line 2") && unknown.contains("wind"), "{unknown}");
        assert!(load("name = \"own\"\n[[storm]]\nfraction = 0.5\n").contains("start"));
    }
}
